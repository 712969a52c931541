"""The page of `bpfnic verify --html`: its structure, parsed, and its script, run by node on a document of its own where
node is installed."""

import json
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from bpfnic.host.compile import compile_object
from bpfnic.host.object import open_object
from bpfnic.host.verifier import page
from bpfnic.host.verifier.verdict import Subject, verify

PROGRAM = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("xdp") int second(struct xdp_md *ctx)
{
    unsigned char *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    if (ctx->rx_queue_index > 3 && data + 10 > end)
        return XDP_DROP; // </script> & "quotes"
    return data[13];
}
"""


class Page(HTMLParser):
    """`rows`: (class, data-line, all text) of the instructions by id, `lines`: source text by id; `script`: the
    program; `path`: what it steps along."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.lines, self.buttons = {}, {}, []
        self.script = self.path = self.head = ""
        self._into = None
        self.open = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag not in ("meta",):
            self.open.append(tag)
        if tag == "tr" and "code" in attrs.get("class", ""):
            self._into = self.rows.setdefault(attrs["id"], [attrs["class"].split(), attrs["data-line"], ""])
        elif tag == "tr" and "line" in attrs.get("class", ""):
            self._into = self.lines.setdefault(attrs["id"], ["", "", ""])
        elif tag == "button":
            self.buttons.append(attrs["onclick"])
        elif tag == "script":
            self._script = attrs.get("id", "program")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag  # well formed
        if tag == "tr":
            self._into = None

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            if self._script == "path":
                self.path += data
            else:
                self.script += data
        elif self._into:
            self._into[2] += data
        else:
            self.head += data


@pytest.fixture
def verdict(tmp_path):
    path = tmp_path / "second.bpf.c"
    path.write_text(PROGRAM)
    object = open_object(compile_object(path))
    verdict = verify(Subject.of(object, object.program("second")))
    assert verdict.error and len(verdict.path) > 5
    return verdict


def test_each_instruction_has_its_line_its_states_and_its_place_on_the_path(verdict):
    subject, found = verdict.subject, Page(page.render(verdict))
    slots = [slot for slot, one in enumerate(subject.code) if one is not None]
    assert list(found.rows) == [f"i{slot}" for slot in slots]
    on_path = {step.slot for step in verdict.path}
    for slot in slots:
        classes, line, text = found.rows[f"i{slot}"]
        source = subject.line(slot)
        assert found.lines[line][2].endswith(source.text) or source.text in found.lines[line][2]
        assert line.endswith(f"-{source.line}")
        assert ("path" in classes) == (slot in on_path) and ("bad" in classes) == (slot == verdict.error.slot)
        assert "R10=fp0" in text or "not reached" in text
    assert [step[0] for step in json.loads(found.path)] == [step.slot for step in verdict.path]
    assert [step[1] for step in json.loads(found.path)] == [step.shown for step in verdict.path]
    assert found.buttons == ["step(-1)", "step(1)"] and "What would help" in found.head
    assert not found.open or found.open == ["html"]


def test_an_accepted_program_has_no_path(tmp_path):
    path = tmp_path / "good.bpf.c"
    path.write_text(PROGRAM.replace("rx_queue_index > 3 && data + 10", "rx_queue_index > 3 || data + 14"))
    object = open_object(compile_object(path))
    verdict = verify(Subject.of(object, object.program("second")))
    found = Page(page.render(verdict))
    assert verdict.accepted and json.loads(found.path) == [] and not found.buttons
    assert not any({"path", "bad"} & set(classes) for classes, _, _ in found.rows.values())


DOCUMENT = """
const elements = {}, listeners = [];
const element = (id, dataset) => elements[id] = {id, dataset, textContent: "", on: new Set(), listeners: {},
  classList: {add: name => elements[id].on.add(name), remove: name => elements[id].on.delete(name),
              toggle: name => elements[id].on.has(name) ? elements[id].on.delete(name) : elements[id].on.add(name)},
  scrollIntoView() {}, addEventListener(kind, what) { this.listeners[kind] = what; }};
const given = JSON.parse(require("fs").readFileSync(0, "utf8"));
for (const id of ["path", "count", "now"]) element(id);
elements.path.textContent = given.path;
for (const [id, line] of given.rows) element(id, {line});
for (const id of given.lines) element(id, {});
const document = {
  getElementById: id => elements[id] || null,
  addEventListener: (kind, what) => listeners.push(what),
  querySelectorAll: which => which === ".on" ? Object.values(elements).filter(one => one.on.has("on"))
    : given.rows.map(([id]) => elements[id])};
const seen = [];
const look = () => seen.push([Object.values(elements).filter(one => one.on.has("on")).map(one => one.id).sort(),
                              elements.count.textContent, elements.now.textContent]);
const press = key => { listeners.forEach(what => what({key})); look(); };
eval(given.script + ";look(); press('ArrowRight'); press('p'); press('ArrowLeft'); step(-1000); look();"
  + "step(1000); look(); elements[given.rows[0][0]].listeners.click(); look();");
console.log(JSON.stringify({seen, open: elements[given.rows[0][0]].on.has("open")}));
"""
"""What of a browser's document the script uses."""


@pytest.mark.skipif(shutil.which("node") is None, reason="node isn't installed")
def test_the_script_steps_along_the_path(verdict):
    found = Page(page.render(verdict))
    given = {"path": found.path, "script": found.script, "lines": list(found.lines),
             "rows": [(id, line) for id, (_, line, _) in found.rows.items()]}  # fmt: skip
    ran = subprocess.run(["node", "-e", DOCUMENT], input=json.dumps(given), capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    out = json.loads(ran.stdout)
    steps, last = verdict.path, len(verdict.path) - 1

    def at(index):
        row = f"i{steps[index].slot}"
        return [sorted({row, found.rows[row][1]}), f"{index + 1} of {len(steps)}",
                f"{steps[index].slot}: {steps[index].shown}"]  # fmt: skip

    end, back, bottom = at(last), at(last - 1), at(0)
    assert out["seen"][:6] == [end, end, back, at(last - 2), bottom, end]
    first = next(iter(found.rows))
    assert out["seen"][6] == [sorted({first, found.rows[first][1]}), end[1], ""] and out["open"]
