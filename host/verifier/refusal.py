"""Why a program is refused."""

from bpfnic.spec.errors import BpfnicError


class Refusal(BpfnicError):
    """`message`: the line that Linux's log ends with. `slot`: the instruction. `why`: a sentence for people; `fix`:
    what would help, or "". `register`: whose history tells more, or None. `before`: found before any path was
    walked. `behind`: lines of the log behind the message."""

    def __init__(self, message: str, slot: int = -1, why: str = "", fix: str = "", register: int | None = None,
                 before: bool = False, behind: tuple[str, ...] = ()):  # fmt: skip
        super().__init__(message)
        self.message, self.slot, self.why, self.fix = message, slot, why or message, fix
        self.register, self.before, self.behind = register, before, behind


class TooComplex(Refusal):
    """The program may be safe, and isn't followed to its end."""
