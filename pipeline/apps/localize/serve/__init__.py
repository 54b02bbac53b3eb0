"""A local web page where you can drop a video (`soundspot serve`).

- `uploads`: localizes what was dropped, within limits of size and duration. Independent of the page.
- `page`: the page, built with Gradio, and its server.
"""
