"""The verifier: accepts what Linux accepts, and nothing that the hardware would have to stop (docs/verifier.md).

    from bpfnic.host.verifier.verdict import Subject, verify

    verdict = verify(Subject.of(object, program))
    verdict.accepted, verdict.error, verdict.log

What is known of a number: width, tnum, scalar, arithmetic, branch. What a place holds: values, state. The walk over all
paths: graph, walk, memory, context, stack, pointers, jumps, calls, subprograms, locks, pruning, precision. What is
shown: text, log, explain, page. What a device lacks: limits."""
