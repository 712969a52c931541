"""The plugin protocol of the public conformance suite: a program and its memory in, r0 out.

    command.py   `bpfnic-conformance`: arguments, standard input, batches
    case.py      a program as bytes ▶ what an engine runs
    golden.py    it runs on the interpreter
    rtl.py       it runs on machine.py (core, program store, windows), compiled with harness.cpp
"""
