"""A local page to drop a video on (`soundspot serve`).

- `uploads`: localizes what was dropped, within limits of size and duration. Knows nothing of the page.
- `page`: the page, built with Gradio, and its server.
"""
