"""The self-contained HTML page: `page` assembles it, `galleries` collects the clips, and ``templates/`` has HTML, CSS and script.

Sections hand over text and charts; nothing here parses CSV files.
"""
