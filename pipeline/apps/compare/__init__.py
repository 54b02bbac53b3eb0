"""Compare scores: trained variants, stored response maps under several protocols, and experiments that differ in one setting.

`soundspot scores` prints `overview`; `soundspot evaluate` rescores maps with `rescore` and prints `protocol_tables`;
`soundspot sensitivity` uses `sensitivity`.
"""
