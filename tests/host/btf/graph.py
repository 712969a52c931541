"""A graph of every kind of type, and of what C writes in its own way: made by hand, for no compiler puts it all in one
file. tests/host/btf/bpftool/ has what bpftool 7.8 prints of it."""

from bpfnic.host.btf import Kind, Part, Type

SIGNED, CHAR, BOOL = 1 << 24, 2 << 24, 4 << 24
TYPES = [
    Type(1, Kind.INT, "int", 4, detail=SIGNED | 32),
    Type(2, Kind.INT, "long long unsigned int", 8, detail=64),
    Type(3, Kind.INT, "char", 1, detail=SIGNED | 8),
    Type(4, Kind.INT, "_Bool", 1, detail=BOOL | 8),
    Type(5, Kind.STRUCT, "node", 24, flag=True, parts=(
        Part("next", 6), Part("low", 1, offset=64, bits=3), Part("high", 1, offset=72, bits=5),
        Part("far", 3, offset=160))),
    Type(6, Kind.PTR, "", target=5),
    Type(7, Kind.STRUCT, "node", 3, parts=(Part("wide", 8), Part("", 9, offset=16))),  # packed, of a name in use
    Type(8, Kind.INT, "short int", 2, detail=SIGNED | 16),
    Type(9, Kind.UNION, "", 1, parts=(Part("c", 3), Part("b", 4))),
    Type(10, Kind.ENUM, "color", 4, flag=True, parts=(Part("RED", value=-1), Part("GREEN", value=5))),
    Type(11, Kind.ENUM64, "", 8, parts=(Part("GREEN", value=1), Part("HUGE", value=1 << 40))),
    Type(12, Kind.ENUM64, "narrow", 8, parts=(Part("NARROW", value=7),)),
    Type(13, Kind.ENUM, "byte", 1, parts=(Part("BYTE", value=0xFFFFFFFF),)),
    Type(14, Kind.FWD, "undefined", flag=True),
    Type(15, Kind.PTR, "", target=14),
    Type(16, Kind.CONST, "", target=3),
    Type(17, Kind.PTR, "", target=16),
    Type(18, Kind.RESTRICT, "", target=17),
    Type(19, Kind.FUNC_PROTO, "", target=1, parts=(Part("text", 18), Part("other", 15), Part(""))),
    Type(20, Kind.PTR, "", target=19),
    Type(21, Kind.ARRAY, "", target=20, index=1, count=3),
    Type(22, Kind.ARRAY, "", target=21, index=1, count=2),
    Type(23, Kind.TYPEDEF, "callbacks", target=22),
    Type(24, Kind.TYPEDEF, "node", target=7),
    Type(25, Kind.TYPEDEF, "node", target=5),
    Type(26, Kind.TYPE_TAG, "user", target=5),
    Type(27, Kind.PTR, "", target=26),
    Type(28, Kind.VOLATILE, "", target=27),
    Type(29, Kind.FUNC_PROTO, "", target=28),
    Type(30, Kind.FUNC, "kernel_does", target=29, detail=1),
    Type(31, Kind.DECL_TAG, "bpf_kfunc", target=30, detail=0xFFFFFFFF),
    Type(32, Kind.DECL_TAG, "bpf_fastcall", target=30, detail=0xFFFFFFFF),
    Type(33, Kind.DECL_TAG, "second", target=5, detail=1),
    Type(34, Kind.FLOAT, "double", 8),
    Type(35, Kind.STRUCT, "holes", 64, flag=True, parts=(
        Part("first", 3), Part("eighth", 1, offset=64), Part("bits", 2, offset=128, bits=20),
        Part("more", 2, offset=170, bits=5), Part("real", 34, offset=256), Part("anonymous", 36, offset=320))),
    Type(36, Kind.STRUCT, "", 8, parts=(Part("self", 37),)),
    Type(37, Kind.PTR, "", target=35),
    Type(38, Kind.VAR, "counter", target=2, detail=1),
    Type(39, Kind.VAR, "elsewhere", target=25, detail=2),
    Type(40, Kind.DATASEC, ".bss", 32, parts=(Part("", 38, size=8), Part("", 39, offset=8, size=24))),
    Type(41, Kind.TYPEDEF, "__builtin_va_list", target=9),
    Type(42, Kind.STRUCT, "empty"),
    Type(43, Kind.INT, "__Poly8_t", 1, detail=8),
    Type(44, Kind.STRUCT, "outer", 48, parts=(
        Part("inner", 5), Part("list", 47, offset=192), Part("set", 48, offset=256))),
    Type(45, Kind.FUNC_PROTO, "", target=0),
    Type(46, Kind.TYPEDEF, "handler", target=45),
    Type(47, Kind.PTR, "", target=46),
    Type(48, Kind.ARRAY, "", target=16, index=1, count=16),
    Type(49, Kind.TYPE_TAG, "noderef", target=1, flag=True),
    Type(50, Kind.TYPEDEF, "attributed", target=49),
]  # fmt: skip
