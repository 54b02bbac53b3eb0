"""The bottom layer: used by every other package, depends on none of them.

- `config`: settings from ``params.yaml`` and cards. `project`: names and paths of a project's files. `errors`: error classes.
- `access`: files that the system cannot read right now. `reading`: text formats, with limits for hostile files.
- `files`: atomic writing, digests and locks. `hdf5`: reproducible HDF5 files with checksums. `tables`: CSV as spreadsheet programs
  write it. `text_table`: tables of text for a terminal, and characters that are safe to print.
- `remote`: files of object stores and web servers.
- `code`: digest of the code of a stage. `record`: which code wrote a folder, and the digests of its files.
- `seeding`: keyed random generators. `cluster`: tasks on Dask. `processes`: child processes and temporary folders that end
  with the program. `console`: progress, errors and exit codes. `packages`: packages of an extra.
"""
