"""Read files of object stores and web servers through fsspec (extra `remote`), in ranges of bytes.

- `path`: `RemotePath`, which has the methods of a local path that reading needs. `file`: an open file.
- `request`: one request, and which failures are repeated.
"""
