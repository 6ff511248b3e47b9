"""The command line, ``emp``.

Results go to stdout; progress, notes, warnings and logs to stderr. With ``--json`` stdout holds one JSON document and
nothing else (commands that go on telling, such as ``emp jobs watch``, print one document per line)::

    {"ok": true, "data": ...}                              it went well; `data` is what the command's help says
    {"ok": false, "error": {"code", "message", "hint"?, "details"?, "problems"?, "also"?}, "data"?: ...}

Exit codes: 0 done, 1 the job failed, 2 wrong usage or configuration, 3 Redis or a service could not be reached,
130 interrupted.
"""
