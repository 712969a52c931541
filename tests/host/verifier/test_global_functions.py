"""Global functions, of which BTF says what they are given: each object is judged by the kernel too."""

import re
from dataclasses import replace

import pytest

from bpfnic.host.btf import Btf, Kind, Part, Type
from bpfnic.host.btf.encode import encode
from bpfnic.host.compile import compile_object
from bpfnic.host.linux.verdict import judge
from bpfnic.host.object import open_object
from bpfnic.host.prototypes import Prototype
from bpfnic.host.verifier.verdict import Subject, verify
from tests.host.conftest import HEADER
from tests.host.verifier.subjects import subject

ARRAY = """
struct value { __u32 a, b; struct bpf_spin_lock lock; };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __type(key, __u32); __type(value, struct value); __uint(max_entries, 1); }
  locked SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __type(key, __u32); __type(value, __u64); __uint(max_entries, 4); }
  numbers SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } ring SEC(".maps");
struct pair { __u32 a, b; };
struct elsewhere;
"""
READS = "int f(struct pair *p) { return p ? p->a + p->b : 0; }"
# Functions, the program's body, and the error.
CASES = {
    "any number": ("int f(int x) { return x ? 2 : 1; }", "return f(ctx->ingress_ifindex);", None),
    "nothing is known of arguments": (
        "int f(__u32 n) { char bytes[8] = {}; asm volatile(\"\" :: \"r\"(&bytes)); return ((char *)bytes)[n]; }",
        "return f(3);", "invalid unbounded variable-offset read from stack R|R\\d unbounded memory access|"
        "pointer and register with unbounded min value|makes fp pointer be out of bounds"),
    "a static one is walked for each call": (
        "static __attribute__((noinline)) int f(__u32 n) { volatile char bytes[8] = {}; return bytes[n]; }",
        "return f(3);", None),
    "a pointer for a number": ("int f(long x) { return x != 0; }", "return f((long)ctx);", "R1 is not a scalar"),
    "the context": ("int f(struct xdp_md *c) { return c->ingress_ifindex; }", "return f(ctx);", None),
    "a moved context": ("int f(struct xdp_md *c) { return c->ingress_ifindex; }",
                        "return f((struct xdp_md *)((char *)ctx + 4));", "dereference of modified ctx ptr R1 off=4"),
    "memory for the context": ("int f(struct xdp_md *c) { return c->ingress_ifindex; }",
                               "struct pair p = {}; return f((struct xdp_md *)&p);", "arg#0 expects pointer to ctx"),
    "a context by its tag": ("int f(void *c __arg_ctx) { return ((struct xdp_md *)c)->ingress_ifindex; }",
                             "return f(ctx);", None),
    "a context of another type by its tag": ("int f(struct __sk_buff *c __arg_ctx) { return c->len; }",
                                             "return f((void *)ctx);", "arg#0 should be `struct xdp_md \\*`"),
    "memory": (READS, "struct pair p = {1, 2}; return f(&p);", None),
    "memory may be NULL": ("int f(struct pair *p) { return p->a; }", "struct pair p = {1, 2}; return f(&p);",
                           "R1 invalid mem access 'mem_or_null'"),
    "memory may not be NULL": ("int f(struct pair *p __arg_nonnull) { return p->a; }",
                               "struct pair p = {1, 2}; return f(&p);", None),
    "memory beyond its size": ("int f(__u32 *p __arg_nonnull) { return p[1]; }",
                               "struct pair p = {1, 2}; return f(&p.a);",
                               "R1 min value is outside of the allowed memory range|"
                               "R1 max value is outside of the allowed memory range"),
    "too little memory": (READS, "__u32 small = 1; return f((struct pair *)&small);", "invalid read from stack R1"),
    "memory that is written": ("int f(struct pair *p) { if (p) p->a = 7; return 0; }",
                               "struct pair p = {1, 2}; f(&p); return p.a;", None),
    "what is on the stack is unknown behind the call": (
        READS, "struct pair p = {0, 0}; f(&p); struct xdp_md *c = ctx; volatile char bytes[4] = {};"
        "return bytes[*(volatile __u32 *)&p.a];", "unbounded"),
    "NULL": (READS, "return f((void *)0);", None),
    "a value that may be NULL": ("int f(__u64 *p) { return p ? *p : 0; }",
                                 "int key = 1; return f(bpf_map_lookup_elem(&numbers, &key));", None),
    "a value that may be NULL for one that may not": (
        "int f(__u64 *p __arg_nonnull) { return *p; }",
        "int key = 1; return f(bpf_map_lookup_elem(&numbers, &key));", "arg#0 is expected to be non-NULL"),
    "a value with a lock": (
        "int f(struct value *p) { return p ? p->a : 0; }",
        "int key = 0; struct value *v = bpf_map_lookup_elem(&locked, &key); return v ? f(v) : 0;",
        "bpf_spin_lock cannot be accessed directly by load/store"),
    "a number for memory": (READS, "return f((void *)(long)ctx->ingress_ifindex);", "R1 type=scalar expected=fp"),
    "the context for memory": (READS, "return f((void *)ctx);", "R1 type=ctx expected=fp"),
    "packet bytes": (READS, "void *data = (void *)(long)ctx->data; if (data + 8 > (void *)(long)ctx->data_end)"
                     " return 1; return f(data);", None),
    "packet bytes that weren't compared": (READS, "return f((void *)(long)ctx->data);",
                                           "R1 offset is outside of the packet"),
    "pointers into the packet stay": (
        "int f(int x) { return x ? 2 : 1; }",
        "char *data = (void *)(long)ctx->data; if (data + 8 > (char *)(long)ctx->data_end) return 1;"
        "f(3); return data[7];", None),
    "pointers into the packet are gone": (
        "int f(struct xdp_md *c) { return bpf_xdp_adjust_head(c, 4); }",
        "char *data = (void *)(long)ctx->data; if (data + 8 > (char *)(long)ctx->data_end) return 1;"
        "f(ctx); return data[7];", "R\\d invalid mem access 'scalar'"),
    "also where another function changes it": (
        "static __attribute__((noinline)) int g(struct xdp_md *c) { return bpf_xdp_adjust_head(c, 4); }\n"
        "int f(struct xdp_md *c) { return g(c) + 1; }",
        "char *data = (void *)(long)ctx->data; if (data + 8 > (char *)(long)ctx->data_end) return 1;"
        "f(ctx); return data[7];", "R\\d invalid mem access 'scalar'"),
    "a record": (READS, "struct pair *p = bpf_ringbuf_reserve(&ring, 8, 0); if (!p) return 1; f(p);"
                 "bpf_ringbuf_discard(p, 0); return 2;", None),
    "a record that it keeps": (
        "int f(int x) { struct pair *p = bpf_ringbuf_reserve(&ring, 8, 0); return p ? 1 : x; }", "return f(1);",
        "would lead to reference leak"),
    "its result is any number": ("int f(int x) { return x ? 2 : 1; }",
                                 "volatile char bytes[4] = {}; return bytes[f(1)];", "unbounded|unbounded min value"),
    "one that isn't called": ("int f(struct pair *p) { return p->a; }", "return 2;", None),
    "one that another calls": ("int g(struct pair *p) { return p->a; }\nint f(int x) { struct pair p = {x}; "
                               "return g(&p); }", "return f(1);", "R1 invalid mem access 'mem_or_null'"),
    "a structure by value": ("int f(struct elsewhere *p) { return p != 0; }", "struct pair p; return f((void *)&p);",
                             "arg#0 reference type\\('FWD elsewhere'\\) size cannot be determined: -22"),
    "a pointer to anything": ("int f(void *p) { return p != 0; }", "struct pair p; return f(&p);",
                              "arg#0 reference type\\('UNKNOWN '\\) size cannot be determined: -22"),
    "a pointer to a pointer": ("int f(char **p) { return p ? *p != 0 : 0; }", "char *p = 0; return f(&p);", None),
    "an array": ("int f(__u8 (*p)[6]) { return p ? (*p)[5] : 0; }", "__u8 p[6] = {}; return f(&p);", None),
    "tags that don't go together": ("int f(struct xdp_md *c __arg_ctx __arg_nonnull) { return c->data_end; }",
                                    "return f(ctx);", "arg#0 has invalid combination of tags"),
    "a tag of a number": ("int f(int x __arg_nonnull) { return x; }", "return f(1);",
                          "arg#0 has pointer tag, but is not a pointer type"),
    "while a lock is held": (
        "int f(int x) { return x; }",
        "int key = 0; struct value *v = bpf_map_lookup_elem(&locked, &key); if (!v) return 1;"
        "bpf_spin_lock(&v->lock); f(1); bpf_spin_unlock(&v->lock); return 2;",
        "use static function instead"),
    "hidden ones are static": (
        "__attribute__((visibility(\"hidden\"))) int f(struct pair *p) { return p->a; }",
        "struct pair p = {1}; return f(&p);", None),
    "each once": ("int f(int x) { for (int i = 0; i < 50; i++) x += bpf_get_prandom_u32(); return x; }",
                  "return f(1) + f(2) + f(3) + f(4);", None),
    "itself": ("int f(int x) { return x ? f(x - 1) ^ bpf_get_prandom_u32() : 0; }", "return f(1);",
               "the call stack of 8 frames is too deep"),
}  # fmt: skip


def renamed(text, number):
    """The case's functions under names of their own, so that all cases are one object. Each has something in it that
    the compiler can't see through, or it would know what they do with their arguments."""
    text = re.sub(r"\b([fg])(?=\()", rf"\1_{number}", text)
    return re.sub(r"(\bint [fg]_\d+\([^{]*\) \{)", r'\1 asm volatile("");', text)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """The verifier's subjects, by name."""
    parts = [HEADER, ARRAY]
    for number, (functions, body, _) in enumerate(CASES.values()):
        functions = re.sub(r"^(?=int )", "__attribute__((noinline)) ", renamed(functions, number), flags=re.M)
        parts.append(f'{functions}\nSEC("xdp") int p{number}(struct xdp_md *ctx) {{ {renamed(body, number)} }}\n')
    path = tmp_path_factory.mktemp("global") / "program.bpf.c"
    path.write_text("".join(parts))
    object = open_object(compile_object(path))
    return {name: Subject.of(object, object.program(f"p{number}")) for number, name in enumerate(CASES)}


@pytest.mark.parametrize("name", CASES)
def test_case(cases, name):
    error = CASES[name][2]
    verdict = verify(cases[name], level=1)
    assert verdict.accepted is (error is None), verdict.log[-8:]
    assert error is None or any(re.search(error, line) for line in verdict.log), verdict.log[-8:]


@pytest.mark.linux
@pytest.mark.parametrize("name", CASES)
def test_case_in_the_kernel(cases, name):
    error = CASES[name][2]
    verdict = judge(cases[name])
    assert verdict.accepted is (error is None), verdict.log[-600:]
    assert error is None or re.search(error, verdict.log), verdict.log[-600:]


def test_a_call_costs_an_instruction(cases):
    """The function has 50 passes of six instructions; it is called four times."""
    assert 300 < verify(cases["each once"]).processed < 400


# BTF that no C compiler writes. Types 1 to 4: int, a structure of it, a pointer to that, a pointer to nothing.

INT, PAIR, PAIR_POINTER, ANYTHING = 1, 2, 3, 4
CALLS = "r1 = {}\ncall f\nexit\nf:\nr0 = 1\nexit"


def described(parameters, result=INT, tags=(), linkage=1):
    """The function at slot 3 (and the program, with the same type): `tags` pairs of parameter and text."""
    parts = tuple(Part(f"p{number}", type) for number, type in enumerate(parameters))
    types = [
        Type(INT, Kind.INT, "int", size=4, detail=1 << 24 | 32),
        Type(PAIR, Kind.STRUCT, "pair", size=8, parts=(Part("a", INT), Part("b", INT, offset=32))),
        Type(PAIR_POINTER, Kind.PTR, "", target=PAIR),
        Type(ANYTHING, Kind.PTR, ""),
        Type(5, Kind.FUNC_PROTO, "", target=result, parts=parts),
        Type(6, Kind.FUNC, "f", target=5, detail=linkage),
        *(Type(0, Kind.DECL_TAG, f"arg:{text}", target=6, detail=parameter) for parameter, text in tags),
    ]
    return Prototype.of(Btf(encode(types)), 6)


WRITTEN = {
    "a number": (described([INT]), "1", None),
    "six arguments": (described([INT] * 6), "1", "Global function f\\(\\) with 6 > 5 args. Buggy compiler."),
    "no result": (described([INT], result=0), "1", "Global function f\\(\\) doesn't return scalar."),
    "a pointer as its result": (described([INT], result=PAIR_POINTER), "1", "f\\(\\) doesn't return scalar."),
    "a structure by value": (described([PAIR]), "1", "Arg#0 type STRUCT in f\\(\\) is not supported yet."),
    "an argument that isn't given": (described([INT, INT]), "1", "R2 is not a scalar"),
    "NULL for memory": (described([PAIR_POINTER]), "0", None),
    "a tag that nobody knows": (described([PAIR_POINTER], tags=[(0, "odd")]), "0",
                                "arg#0 has unsupported set of tags"),
    "nullable memory": (described([PAIR_POINTER], tags=[(0, "nullable")]), "0",
                        "arg#0 has invalid combination of tags"),
    "any pointer as the context": (described([ANYTHING], tags=[(0, "ctx")]), "r1", None),
    "the context that isn't void": (described([PAIR_POINTER], tags=[(0, "ctx")]), "r1",
                                    "arg#0 should be `struct xdp_md \\*`"),
    "a static one": (described([PAIR], linkage=0), "1", None),
}  # fmt: skip


def written(name):
    prototype, argument, _ = WRITTEN[name]
    return replace(subject(CALLS.format(argument)), prototypes={0: prototype, 3: prototype})


@pytest.mark.parametrize("name", WRITTEN)
def test_written_types(name):
    error = WRITTEN[name][2]
    verdict = verify(written(name), level=1)
    assert verdict.accepted is (error is None), verdict.log
    assert error is None or any(re.search(error, line) for line in verdict.log), verdict.log


@pytest.mark.linux
@pytest.mark.parametrize("name", WRITTEN)
def test_written_types_in_the_kernel(name):
    error = WRITTEN[name][2]
    verdict = judge(written(name))
    assert verdict.accepted is (error is None), verdict.log[-600:]
    assert error is None or re.search(error, verdict.log), verdict.log[-600:]


def test_null_is_no_memory_that_must_be_there():
    """Linux takes the constant NULL for `__arg_nonnull`, and lets the function load from it."""
    prototype = described([PAIR_POINTER], tags=[(0, "nonnull")])
    program = replace(subject("r1 = 0\ncall f\nexit\nf:\nr0 = *(u32 *)(r1 + 0)\nexit"), prototypes={3: prototype})
    verdict = verify(program)
    assert verdict.error and verdict.error.message == "Caller passes invalid args into func#1 ('f')"
