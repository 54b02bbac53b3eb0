"""The self-contained HTML page. Sections hand over text and charts; nothing here parses CSV files.

- `page`: assembles the page. `templating` renders `templates` (HTML, CSS and script), `markdown` the text of a section.
- `galleries`: collects the clips. `scored_maps`: maps of scored clips over the epochs.
- `media`: frame, spectrogram and audio of a clip. `encoding`: arrays as the script reads them.
"""
