"""A verdict as one HTML page: the program beside its C source, with the registers at each instruction, and the failing
path to be stepped along. The page needs nothing from elsewhere."""

import html
import json

from bpfnic.host.verifier import explain, text
from bpfnic.host.verifier.state import State
from bpfnic.host.verifier.verdict import Subject, Verdict, verify
from bpfnic.spec.errors import BpfnicError

_MOST = 8
"""States of an instruction that are shown; a line says how many more there were."""
_LIMIT = 200_000
"""Instructions that are walked for the states alone."""

_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 0; color: #1c2024; background: #fff }
header { padding: 12px 20px; border-bottom: 1px solid #d5dae0; position: sticky; top: 0; background: #fff; z-index: 2 }
h1 { font-size: 18px; margin: 0 0 4px } h1 .no { color: #b3261e } h1 .yes { color: #1a7f37 }
pre, td, .state { font: 12.5px/1.5 ui-monospace, monospace; white-space: pre-wrap }
main { display: flex } section { flex: 1; min-width: 0; padding: 10px 20px; overflow-x: auto }
table { border-collapse: collapse; width: 100% } td { vertical-align: top; padding: 0 8px }
td.n { color: #6b7480; text-align: right; user-select: none } tr.code { cursor: pointer }
tr.code:hover { background: #f2f5f8 } tr.on { background: #fff3c4 !important } tr.bad td { color: #b3261e }
tr.path td.n { border-left: 3px solid #d9822b }
.state { color: #42506b; display: none } tr.open .state { display: block }
.source td { color: #6b7480 } tr.line.on td { background: #fff3c4 } button { font: inherit; margin-right: 6px }
@media (prefers-color-scheme: dark) {
  body, header { background: #14171a; color: #e3e6ea } tr.code:hover { background: #1f252b } .state { color: #9db2d8 }
  tr.on, tr.line.on td { background: #4a3f12 !important } header { border-color: #333a41 } tr.bad td { color: #ff8a80 }
}
"""

_SCRIPT = """
const path = JSON.parse(document.getElementById("path").textContent);
let at = path.length - 1;
function mark(slot, state) {
  document.querySelectorAll(".on").forEach(row => row.classList.remove("on"));
  const row = document.getElementById("i" + slot);
  if (!row) return;
  row.classList.add("on");
  row.scrollIntoView({block: "center"});
  const line = document.getElementById(row.dataset.line);
  if (line) { line.classList.add("on"); line.scrollIntoView({block: "center"}); }
  document.getElementById("now").textContent = state === undefined ? "" : slot + ": " + state;
}
function step(by) {
  if (!path.length) return;
  at = Math.max(0, Math.min(path.length - 1, at + by));
  document.getElementById("count").textContent = (at + 1) + " of " + path.length;
  mark(path[at][0], path[at][1]);
}
document.querySelectorAll("tr.code").forEach(row => row.addEventListener("click", () => {
  row.classList.toggle("open"); mark(row.id.slice(1));
}));
document.addEventListener("keydown", event => {
  if (event.key === "ArrowRight" || event.key === "n") step(1);
  if (event.key === "ArrowLeft" || event.key === "p") step(-1);
});
if (path.length) step(0);
"""


def states_at(subject: Subject) -> tuple[dict[int, list[str]], dict[int, int]]:
    """The states that the walk meets at each instruction, as text, and how many more there were."""
    shown: dict[int, list[str]] = {}
    more: dict[int, int] = {}

    def observe(state: State) -> None:
        states = shown.setdefault(state.slot, [])
        if len(states) >= _MOST:
            more[state.slot] = more.get(state.slot, 0) + 1
        elif (line := text.state(state)) not in states:
            states.append(line)

    verify(subject, limit=_LIMIT, observe=observe)
    return shown, more


def render(verdict: Verdict, lacking: list[str] | None = None) -> str:
    """The page."""
    subject, error = verdict.subject, verdict.error
    shown, more = states_at(subject)
    path = [[step.slot, step.shown] for step in verdict.path]
    on_path = {step.slot for step in verdict.path}
    files: list[str] = []
    rows = []
    for slot, instruction in enumerate(subject.code):
        if instruction is None:
            continue
        line = subject.line(slot)
        if line and line.file not in files:
            files.append(line.file)
        anchor = f"l{files.index(line.file)}-{line.line}" if line else ""
        kinds = ["code", *(["path"] if slot in on_path else []), *(["bad"] if error and error.slot == slot else [])]
        states = "\n".join(shown.get(slot, ["not reached"]))
        if slot in more:
            states += f"\n… and {more[slot]} more"
        rows.append(f'<tr id="i{slot}" class="{" ".join(kinds)}" data-line="{anchor}"><td class="n">{slot}</td><td>'
                    f'{_escaped(explain.instruction(verdict, slot))}<div class="state">{_escaped(states)}</div></td>'
                    "</tr>")  # fmt: skip
    source = "".join(_file(verdict, file, number) for number, file in enumerate(files))
    word = '<span class="yes">accepted</span>' if verdict.accepted else '<span class="no">refused</span>'
    steps = ('<button onclick="step(-1)">◀ back</button><button onclick="step(1)">forward ▶</button>'
             '<span id="count"></span> <code id="now"></code>' if path else "")  # fmt: skip
    told = "\n".join(explain.lines(verdict, lacking))
    data = json.dumps(path).replace("</", "<\\/")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{_escaped(subject.name)}</title>'
        f"<style>{_STYLE}</style><header><h1>{_escaped(subject.name)}: {word}</h1><pre>{_escaped(told)}</pre>{steps}"
        f'</header><main><section><table>{"".join(rows)}</table></section>'
        f'<section class="source"><table>{source or "<tr><td>no line information</td></tr>"}</table></section></main>'
        f'<script type="application/json" id="path">{data}</script><script>{_SCRIPT}</script></html>\n'
    )


def _file(verdict: Verdict, file: str, number: int) -> str:
    known = explain.source_lines(verdict, file)
    rows = [f'<tr><td class="n"></td><td>{_escaped(file.rsplit("/", 1)[-1])}</td></tr>']
    rows += [f'<tr class="line" id="l{number}-{line}"><td class="n">{line}</td><td>{_escaped(content)}</td></tr>'
             for line, content in sorted(known.items())]  # fmt: skip
    return "".join(rows)


def _escaped(content: str) -> str:
    return html.escape(content)


def write(path: str, pages: str) -> None:
    """Raises BpfnicError where the file can't be written."""
    try:
        with open(path, "w") as file:
            file.write(pages)
    except OSError as error:
        raise BpfnicError(f"{path}: {error.strerror}") from None
