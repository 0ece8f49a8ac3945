"""The wire: AWS's protocols, read and written from botocore's service models. It knows no cloud.

Order of a request: `request` (what came over HTTP, bounded) -> `dispatch` (which service, operation, protocol) ->
`sigv4` (who sent it) -> `query` or `jsonwire` (its parameters, keyed by botocore's member names) -> the caller's own
work -> `replies` (the answer, or the error, in the caller's protocol).

Nothing here imports botocore's code: only the JSON models it ships are read, because the code costs 16 MB and a tenth
of a second for every process that loads it.
"""
