"""The barrel core, stage by stage. Numbers in names are stages; docs/hardware.md draws them."""

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, connect, flipped
from amaranth.utils import bits_for, ceil_log2, exact_log2

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.core.access import AccessCheck
from bpfnic.hdl.core.alu import Alu, Multiplier, extended
from bpfnic.hdl.core.answers import Answers, Expected
from bpfnic.hdl.core.checksum import Checksum
from bpfnic.hdl.core.control import Access, Addend, Flow, Kind, Register, Step, Sum, Unit, traits
from bpfnic.hdl.core.decode import Decoder, Instruction, illegal
from bpfnic.hdl.core.divider import Divider
from bpfnic.hdl.core.immediates import immediate
from bpfnic.hdl.core.operands import Operands
from bpfnic.hdl.core.registers import WORD_ENTRY, Generations, Registers, entry_of
from bpfnic.hdl.core.requests import Requests, operation_of
from bpfnic.hdl.core.retirement import Retirement
from bpfnic.hdl.core.scheduler import Scheduler
from bpfnic.hdl.core.staged import Staged
from bpfnic.hdl.core.steps import micro_pass, next_step, this_pass, turns_out
from bpfnic.hdl.core.threads import FIRMWARE_POINTER_UNITS, HelperNumber, Left, ProgramCounter, Progress, Threads
from bpfnic.hdl.interfaces import CorePorts, Finish
from bpfnic.hdl.lanes import even_row, touched
from bpfnic.hdl.mapinterfaces import MapCall
from bpfnic.hdl.queue import Queue
from bpfnic.spec import addresses, isa
from bpfnic.spec.causes import Cause
from bpfnic.spec.maps import LOCK_BYTES, MAX_TAIL_CALLS
from bpfnic.spec.registers import ENTRY_VALID
from bpfnic.spec.rings import PACKET_BYTES_SHIFT

_DEFAULT_FRAME_UNITS = isa.DEFAULT_FRAME_BYTES // addresses.FRAME_ALIGN
_LINK_POINTER_BIT = 20  # a link's pc lies below
_LINK_FRAME_BIT = _LINK_POINTER_BIT + Progress["pointer"].width
_CALLER_BITS = ceil_log2(addresses.FRAMES)
_CODE_BITS = ceil_log2(addresses.CODE_BYTES)


class Core(Component):
    """Parameters
    ----------
    config : the NIC's size.

    Members
    -------
    See interfaces.CorePorts.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        super().__init__(CorePorts(config))

    def elaborate(self, platform) -> Module:
        config = self.config
        m = Module()
        m.submodules.scheduler = scheduler = Scheduler(config)
        m.submodules.threads = threads = Threads(config)
        m.submodules.decoder = decoder = Decoder(config)
        m.submodules.registers = registers = Registers(config)
        m.submodules.generations = generations = Generations(config)
        m.submodules.operands = operands = Operands(config)
        m.submodules.alu = alu = Alu()
        m.submodules.multiplier = multiplier = Multiplier()
        m.submodules.check = check = AccessCheck(config)
        m.submodules.divider = divider = Divider(config)
        m.submodules.checksum = checksum = Checksum(config)
        m.submodules.requests = requests = Requests(config)
        m.submodules.answers = answers = Answers(config)
        m.submodules.finished = finished = Queue(Finish(config), config.threads)
        m.submodules.retirement = retirement = Retirement(config)

        m.submodules.pipeline = pipeline = Module()  # its registers; apart, so that no condition here applies to them

        def staged(stage: int, value, name: str, *, shape=None, reset: bool = False) -> Staged:
            signal = Signal(shape or len(Value.cast(value)), name=f"{name}_{stage}")
            m.d.comb += signal.eq(value)
            return Staged(pipeline, stage, signal, name, reset=reset)

        # ---- 0 SELECT
        selected = staged(0, scheduler.selected, "selected", reset=True)
        thread = staged(0, scheduler.thread, "thread")

        # ---- 1 THREAD
        revoked = Signal()  # the thread was selected in the clock in which it was known to wait
        valid = staged(1, selected.at(1) & ~revoked, "valid", reset=True)
        m.d.comb += [threads.fetches.eq(valid.at(1)), threads.fetching.eq(thread.at(1))]
        fresh = staged(1, threads.fetching_fresh, "fresh")
        pc = Staged(pipeline, 1, threads.fetching_pc, "pc")

        # ---- 1, 2 FETCH: address, block RAM; meanwhile, where the thread is in its instruction
        m.d.comb += [
            self.fetch.slot.eq(pc.at(1).slot),
            self.fetch.even_row.eq(threads.fetching_even_row),
            threads.decoding.eq(thread.at(2)),
            threads.decoding_fresh.eq(fresh.at(2)),
            answers.asking.eq(thread.at(2)),
        ]
        progress = Staged(pipeline, 2, threads.progress, "progress")
        number = Staged(pipeline, 2, threads.number, "number")
        engine_says = Staged(pipeline, 2, answers.engine_says, "engine_says")
        step = Staged(pipeline, 2, turns_out(m, progress.at(2).step, progress.at(2).call, answers.engine_says), "step")
        again = staged(2, progress.at(2).step == Step.HELPER, "again")

        # ---- 3 DECODE: what the instruction says, and what the thread's step does
        instruction = Staged(pipeline, 3, data.View(Instruction, self.fetch.instruction), "instruction")
        next_imm = Staged(pipeline, 3, self.fetch.next_imm, "next_imm")
        next_reserved = Staged(pipeline, 3, self.fetch.next_reserved, "next_reserved")
        m.d.comb += [
            decoder.instruction.eq(instruction.at(3)),
            decoder.number.eq(number.at(3)),
            decoder.again.eq(again.at(3)),
        ]
        decoded = Staged(pipeline, 3, decoder.control, "decoded")
        rules = Staged(pipeline, 3, decoder.rules, "rules")
        micro = Staged(pipeline, 3, micro_pass(m, step.at(3), progress.at(3).call), "micro")
        begins = staged(3, step.at(3) == Step.INSTRUCTION, "begins")
        second = staged(3, progress.at(3).skip.any(), "second")

        # ---- 4 PASS: which of both, and the entries of its operands
        control_4 = this_pass(m, decoded.at(4), micro.at(4), step.at(4))
        control = Staged(pipeline, 4, control_4, "control")
        tries = control_4.then == Step.TRY_COPY
        counts = staged(4, (begins.at(4) | tries) & ~second.at(4), "counts")
        # The second half of a load brings the first one along.
        right_4 = Signal(Register)
        m.d.comb += right_4.eq(Mux(second.at(4) & (control_4.access == Access.LOAD), Register.WORD, control_4.right))
        dst, src, frame = instruction.at(4).dst, instruction.at(4).src, progress.at(4).frame
        left_entry = staged(4, entry_of(control_4.left, dst, src, frame, reading=True), "left_entry")
        right_entry = staged(4, entry_of(right_4, dst, src, frame), "right_entry")

        def frame_pointer(register) -> Value:
            return ((register == Register.DST) & (dst == isa.FRAME_POINTER)) | (
                (register == Register.SRC) & (src == isa.FRAME_POINTER)
            )

        left_is_pointer = staged(4, frame_pointer(control_4.left), "left_is_pointer")
        right_is_pointer = staged(4, frame_pointer(right_4), "right_is_pointer")

        # ---- 5, 6 READ; meanwhile what needs the instruction alone
        m.d.comb += [
            registers.thread.eq(thread.at(5)),
            registers.left.eq(left_entry.at(5)),
            registers.right.eq(right_entry.at(5)),
        ]
        dst, src, frame = instruction.at(5).dst, instruction.at(5).src, progress.at(5).frame
        destination = staged(5, entry_of(control.at(5).to, dst, src, frame), "destination")
        pc_after = staged(5, self._pc(pc.at(5), 1), "pc_after", shape=ProgramCounter(config))
        frame_units = Mux(instruction.at(5).offset.any(), instruction.at(5).offset[4:10], _DEFAULT_FRAME_UNITS)
        to_firmware = control.at(5).flow == Flow.FIRMWARE
        callee_pointer = staged(5, Mux(to_firmware, FIRMWARE_POINTER_UNITS, progress.at(5).pointer - frame_units),
                                "callee_pointer")  # fmt: skip
        link = Cat(Cat(pc_after.at(5), Const(0, _LINK_POINTER_BIT))[:_LINK_POINTER_BIT], progress.at(5).pointer,
                   progress.at(5).frame[:_CALLER_BITS])  # fmt: skip
        constant_5 = immediate(m, control.at(5).immediate, instruction=instruction.at(5), next_imm=next_imm.at(5),
                               link=link, time=self.time, random=self.random, cpu=self.cpu_base + thread.at(5))
        constant = staged(5, constant_5, "constant")
        distance = Signal(17)
        m.d.comb += answers.copying.eq(thread.at(5))
        with m.Switch(control.at(5).addend):
            with m.Case(Addend.OFFSET):
                m.d.comb += distance.eq(instruction.at(5).offset.as_signed())
            with m.Case(Addend.PROGRESS):
                m.d.comb += distance.eq(progress.at(5).words << 3)
            with m.Case(Addend.SIZE):
                m.d.comb += distance.eq(answers.copy.size)
            with m.Case(Addend.LOCK):
                m.d.comb += distance.eq(answers.copy.lock & ~1)
        rest = staged(5, (answers.copy.size - (progress.at(5).words << 3))[:13], "rest")  # bytes that a copy has left
        lock = answers.copy.lock
        of_lock = lock[0] & (lock[3:] == progress.at(5).words)  # the value's lock is in this word, in half `lock[2]`
        lock_first, lock_last = staged(5, of_lock & ~lock[2], "lock_first"), staged(5, of_lock & lock[2], "lock_last")
        distance = staged(5, (distance + progress.at(5).skip)[:17], "distance")

        cause_5 = Signal(4)
        m.d.comb += cause_5.eq(control.at(5).cause)
        with m.If(begins.at(5)):
            with m.If(illegal(instruction.at(5), rules.at(5)) | (control.at(5).wide & next_reserved.at(5))):
                m.d.comb += cause_5.eq(Cause.ILLEGAL_INSTRUCTION)
            with m.If(pc.at(5).outside | (control.at(5).wide & pc_after.at(5).outside)):
                m.d.comb += cause_5.eq(Cause.PROGRAM_RANGE)
        early_cause = staged(5, cause_5, "early_cause")

        # Stage 6. A generation changes with a packet's end alone, long before the next one's first pass.
        m.d.comb += generations.reader.eq(thread.at(6))
        generation = staged(6, generations.reader_generation, "generation")
        jump = Signal(signed(32))
        with m.If(control.at(6).wide):
            m.d.comb += jump.eq(1)
        with m.Elif(control.at(6).far):
            m.d.comb += jump.eq(instruction.at(6).imm)
        with m.Else():
            m.d.comb += jump.eq(instruction.at(6).offset.as_signed())
        target = staged(6, self._pc(pc_after.at(6), jump), "target", shape=ProgramCounter(config))
        words_then = staged(6, progress.at(6).words + 1, "words_then")
        new_piece = (control.at(6).kind == Kind.LOAD) & ~second.at(6)
        bytes_6 = Mux(lock_last.at(6), LOCK_BYTES, Mux(rest.at(6)[3:].any(), 8, rest.at(6)[:3]))
        piece = staged(6, Mux(new_piece, bytes_6, progress.at(6).piece), "piece")
        last = staged(6, Mux(new_piece, rest.at(6) <= 8, progress.at(6).last), "last")

        # ---- 7 OPERANDS
        m.d.comb += [
            operands.control.eq(control.at(7)),
            operands.progress.eq(progress.at(7)),
            operands.second.eq(second.at(7)),
            operands.generation.eq(generation.at(7)),
            operands.left_entry.eq(left_entry.at(7)),
            operands.right_entry.eq(right_entry.at(7)),
            operands.left_is_pointer.eq(left_is_pointer.at(7)),
            operands.right_is_pointer.eq(right_is_pointer.at(7)),
            operands.left_data.eq(registers.left_data),
            operands.right_data.eq(registers.right_data),
            operands.constant.eq(constant.at(7)),
            operands.words_then.eq(words_then.at(7)),
            operands.piece.eq(piece.at(7)),
            operands.last.eq(last.at(7)),
        ]
        names = "left", "right", "length", "bytes", "is_last"
        left, right, length, piece, last = (Staged(pipeline, 7, getattr(operands, name), name) for name in names)
        addend = staged(7, Mux(control.at(7).addend == Addend.RIGHT, right.at(7), distance.at(7).as_signed()), "addend")

        # A second half: a load passes on what the first one found (the result of other loads is 0), a store shifts down
        # what that one has stored already.
        second_load = second.at(7) & (control.at(7).access == Access.LOAD)
        second_store = staged(7, second.at(7) & (control.at(7).access == Access.STORE), "second_store")
        unit_7 = Mux(second_load, Unit.LOGIC, Mux(second_store.at(7), Unit.SHIFT, control.at(7).unit))
        unit = staged(7, unit_7, "unit", shape=Unit)
        amount_7 = Cat(right.at(7)[:5], right.at(7)[5] & ~control.at(7).narrow)
        amount = staged(7, Mux(second_store.at(7), progress.at(7).skip << 3, amount_7), "amount")

        # ---- 8 EXECUTE
        left_of_budget = Staged(pipeline, 8, threads.left, "left_of_budget")
        m.d.comb += [
            alu.control.eq(control.at(8)),
            alu.control.unit.eq(unit.at(8)),
            alu.left.eq(left.at(8)),
            alu.right.eq(right.at(8)),
            alu.addend.eq(addend.at(8)),
            alu.amount.eq(amount.at(8)),
            alu.shift_right_operand.eq(second_store.at(8)),
            alu.low.eq(left_of_budget.at(8).low),
            multiplier.left.eq(left.at(8)),
            multiplier.right.eq(right.at(8)),
            self.bounds.thread.eq(thread.at(8)),
            check.bounds.eq(self.bounds.bounds),
            check.bytes.eq(length.at(8)),
            threads.executing.eq(thread.at(8)),
            threads.executing_fresh.eq(fresh.at(8)),
        ]
        tail_calls = Staged(pipeline, 8, threads.tail_calls, "tail_calls")
        buffer = Staged(pipeline, 8, self.bounds.bounds.buffer, "buffer")
        m.d.comb += [
            requests.side.eq(control.at(8).side & valid.at(8) & ~second.at(8)),
            requests.side_thread.eq(thread.at(8)),
            requests.side_value.eq(right.at(8)),
            divider.keep.eq(requests.side),
            divider.keeper.eq(thread.at(8)),
            divider.divisor.eq(right.at(8)),
        ]
        too_deep = Value.cast(control.at(8).flow).matches(Flow.CALL, Flow.CALLX) & (
            (progress.at(8).frame >= addresses.FRAMES - 1) | callee_pointer.at(8)[-1]
        )
        nested = (control.at(8).flow == Flow.FIRMWARE) & (progress.at(8).frame == addresses.FIRMWARE_FRAME)
        control_8, kind_8 = control.at(8), Value.cast(control.at(8).kind)
        # No bytes of the packet in an event; of a checksum, which counts in 32 bits, none, or more than any memory has.
        packet_bytes = right.at(8)[PACKET_BYTES_SHIFT:][: bits_for(config.buffer_bytes)]
        no_packet = staged(8, ~packet_bytes.any(), "no_packet")
        no_bytes = staged(8, ~right.at(8)[:32].any(), "no_bytes")
        too_many = (right.at(8)[:32] > addresses.MAX_CHECKSUM_BYTES) & kind_8.matches(Kind.SUM) & ~second.at(8)
        cause_8 = Signal(4)
        with m.If(counts.at(8) & left_of_budget.at(8).none):
            m.d.comb += cause_8.eq(Cause.BUDGET)
        with m.Elif(early_cause.at(8).any()):
            m.d.comb += cause_8.eq(early_cause.at(8))
        with m.Elif(too_deep | nested):
            m.d.comb += cause_8.eq(Cause.CALL_DEPTH)
        with m.Elif(too_many):
            m.d.comb += cause_8.eq(Cause.MEMORY_ACCESS)
        cause = Staged(pipeline, 8, cause_8, "cause")

        # A word for the engine needn't leave before the thread makes the next one.
        waits_for_word = Value.cast(control_8.then).matches(Step.ENGINE, Step.ENTRY)
        more_words = staged(8, Mux(kind_8.matches(Kind.KEY), ~last.at(8), kind_8.matches(Kind.WORD) & ~waits_for_word),
                            "more_words")  # fmt: skip
        last_sum = staged(8, Mux(control_8.sum == Sum.TURN, no_bytes.at(8), (control_8.then == Step.TO)
                                 & (control_8.sum == Sum.WORD) & last.at(8)), "last_sum")  # fmt: skip
        asks_unit = kind_8.matches(Kind.KEY, Kind.WORD, Kind.SERVICE, Kind.DIVIDE) & ~more_words.at(8)
        elsewhere = staged(8, asks_unit | last_sum.at(8), "elsewhere")

        # ---- 9 BRANCH: where the thread goes on if nothing is in the way
        control_9 = control.at(9)
        kind = Value.cast(control_9.kind)
        m.d.comb += [
            check.address.eq(alu.sum),
            check.size.eq(control_9.size),
            check.privileged.eq(progress.at(9).frame == addresses.FIRMWARE_FRAME),
            check.access.eq(control_9.access),
            check.aligned.eq(control_9.aligned),
            check.natural.eq(control_9.natural),
            check.in_pieces.eq(kind.matches(Kind.STORE)),
            check.in_maps.eq(control_9.in_maps),
            check.in_packet.eq(control_9.in_packet),
        ]
        result = Staged(pipeline, 9, alu.result, "result")
        address = Staged(pipeline, 9, alu.sum[:32], "address")
        of_function = staged(9, alu.sum[_CODE_BITS:] == addresses.CODE >> _CODE_BITS, "of_function")
        called = Staged(pipeline, 9, data.View(HelperNumber, Cat(alu.sum[:8], alu.sum[8:].any())), "called")
        taken = staged(9, alu.taken, "taken")
        returns = staged(9, control_9.flow == Flow.EXIT, "returns")
        leaves = staged(9, returns.at(9) & ~progress.at(9).frame.any(), "leaves")  # the outermost function
        # Where it goes on, but for a jump, whose condition is known late.
        onward_9, straight = Signal(ProgramCounter(config)), Signal()
        may_tail_call = (control_9.flow == Flow.TAIL) & (tail_calls.at(9) != MAX_TAIL_CALLS)
        tail_called = staged(9, may_tail_call & (alu.sum & ENTRY_VALID).any(), "tail_called")
        with m.If(returns.at(9)):
            m.d.comb += onward_9.eq(alu.sum)
        with m.Elif(control_9.flow == Flow.CALLX):
            m.d.comb += onward_9.eq(self._code(alu.sum))
        with m.Elif(tail_called.at(9)):
            m.d.comb += onward_9.slot.eq(alu.sum)
        with m.Else():
            m.d.comb += [onward_9.eq(pc_after.at(9)), straight.eq(1)]
        onward = Staged(pipeline, 9, onward_9, "onward")
        jumps = staged(9, straight & (control_9.wide | (taken.at(9) & (control_9.flow != Flow.NEXT))), "jumps")
        # An access is checked in the next clock, in which its thread is made ready already. If it has to wait, or
        # trapped, that is revoked.
        stays = cause.at(9).any() | leaves.at(9) | elsewhere.at(9)
        goes_on = staged(9, valid.at(9) & ~stays, "goes_on", reset=True)

        instructions_then = staged(9, (left_of_budget.at(9).instructions - 1)[:32], "instructions_then")

        traits_of_pass = Staged(pipeline, 9, traits(m, control_9), "traits")
        early = staged(9, cause.at(9).any(), "early")
        held = staged(9, (progress.at(9).step == Step.TRY) & ~taken.at(9), "held")  # a lock, by another thread

        # ---- 10 MEMORY: does it trap, does it wait? A request; what the pass leaves behind
        control_10, progress_10, this = control.at(10), progress.at(10), traits_of_pass.at(10)
        # A key that can't be read: a look-up still asks whether there is such a map at all, for a wrong handle is the
        # first thing that a helper finds.
        fails = check.cause.any()
        no_key = staged(10, this.key & fails & ~early.at(10), "no_key")
        cause = staged(10, Mux(early.at(10), cause.at(10), check.cause), "cause_of_end")
        traps = early.at(10) | (fails & ~this.key)
        acts = valid.at(10) & ~traps
        ends = staged(10, valid.at(10) & (traps | leaves.at(10)), "ends", reset=True)
        key_comes = this.key & check.shared  # from map memory; otherwise it goes on at once
        sends_key = this.key & ~key_comes
        asks = sends_key | this.asks
        sums = this.sums & ~check.shared
        summed = staged(10, sums & last_sum.at(10), "summed")
        holds = staged(10, more_words.at(10) & ~no_key.at(10) & requests.crowded, "holds")
        waits = check.shared | this.divide | summed.at(10)
        waits |= asks & (~more_words.at(10) | no_key.at(10) | requests.crowded)
        stops = staged(10, goes_on.at(10) & (traps | waits), "stops", reset=True)
        m.d.comb += revoked.eq(stops.at(12) & (thread.at(12) == thread.at(1)))
        finds = this.atomic & ~check.shared  # an atomic's old value, in a local window
        # An instruction's call of the engine has been made; what its answer asks for is no instruction any more.
        ends_call = ~more_words.at(10) | no_key.at(10)
        calls = (sends_key & ends_call) | this.calls
        repeats = check.split | finds | held.at(10) | (this.stays & ~summed.at(10) & ~calls)  # at the same pc
        word_done = this.store & ~check.split
        copied = word_done & last.at(10) & this.updates & ~(engine_says.at(10).insert | engine_says.at(10).locked)
        finds_result = this.result & ~check.split
        in_window = this.accesses & ~check.shared & ~no_key.at(10) & ~check.missing
        local = staged(10, acts & in_window, "local", reset=True)
        region, offset = Staged(pipeline, 10, check.region, "region"), Staged(pipeline, 10, check.offset, "offset")
        even = staged(10, even_row(offset.at(10)), "even")
        size = staged(10, Mux(this.store, check.piece, control_10.size), "size")
        lanes = staged(10, touched(offset.at(10)[:3], size.at(10)), "lanes")
        asking = staged(10, acts & asks, "asking", reset=True)
        writes = staged(10, ends.at(10) | (acts & (control_10.write | finds) & ~(waits | asks | held.at(10) | sums)),
                        "writes",
                        reset=True)  # fmt: skip
        own_entry = Mux(finds, WORD_ENTRY, destination.at(10))
        entry = staged(10, Mux(ends.at(10), generation.at(10), own_entry)[: len(destination.at(10))], "entry")

        onward_10 = Mux(jumps.at(10), target.at(10), onward.at(10))
        next_pc = staged(10, Mux(repeats, pc.at(10), onward_10), "next_pc", shape=ProgramCounter(config))
        after, expected = Signal.like(progress_10), Signal(Expected)
        skips_lock = this.load & lock_first.at(10)  # what is stored begins behind it
        next_10 = next_step(m, control_10, step=progress_10.step, no_key=no_key.at(10), shared=check.shared,
                            split=check.split, last=last.at(10), copied=copied, locked=engine_says.at(10).locked,
                            finds=finds, holds=taken.at(10), of_function=of_function.at(10), missing=check.missing,
                            no_packet=no_packet.at(10), no_bytes=no_bytes.at(10))  # fmt: skip
        m.d.comb += [
            after.eq(progress_10),
            after.step.eq(next_10),
            after.call.eq(control_10.call),
            after.skip.eq(Mux(check.split, progress_10.skip + check.first_bytes, Mux(skips_lock, LOCK_BYTES, 0))),
            after.piece.eq(piece.at(10)),
            after.last.eq(last.at(10)),
        ]
        with m.If(Value.cast(control_10.flow).matches(Flow.CALL, Flow.CALLX)):
            m.d.comb += [after.frame.eq(progress_10.frame + 1), after.pointer.eq(callee_pointer.at(10))]
        with m.Elif(control_10.flow == Flow.FIRMWARE):
            m.d.comb += [after.frame.eq(addresses.FIRMWARE_FRAME), after.pointer.eq(callee_pointer.at(10))]
        with m.Elif(returns.at(10)):
            m.d.comb += [
                after.frame.eq(address.at(10)[_LINK_FRAME_BIT:][:_CALLER_BITS]),
                after.pointer.eq(address.at(10)[_LINK_POINTER_BIT:_LINK_FRAME_BIT]),
            ]
        word_summed = sums & this.sums_word
        with m.If(sends_key | word_done | word_summed):  # none are done when the next key, copy or sum begins
            m.d.comb += after.words.eq(Mux(last.at(10), 0, progress_10.words + 1))
        m.d.comb += [
            expected.write.eq(Mux(check.split, control_10.access == Access.LOAD, control_10.write | copied)),
            expected.entry.eq(destination.at(10)),
            expected.size.eq(control_10.size),
            expected.extend.eq(control_10.extend),
            expected.zero.eq(copied | (control_10.access == Access.STORE)),
            expected.final.eq((~repeats & ~no_key.at(10)) | copied | finds_result | this.ends_of_call),
        ]
        with m.If(check.split):
            m.d.comb += [expected.entry.eq(WORD_ENTRY), expected.size.eq(3), expected.extend.eq(0)]
        with m.Elif(key_comes | (this.sum & check.shared)):
            m.d.comb += expected.entry.eq(WORD_ENTRY)
        left_10 = Signal(Left)
        m.d.comb += [
            left_10.instructions.eq(instructions_then.at(10)),
            left_10.none.eq(~instructions_then.at(10).any()),
            left_10.low.eq(instructions_then.at(10) < self.budget[1:]),
        ]
        left_then = Staged(pipeline, 10, left_10, "left_then")
        bytes_of_row = staged(10, Mux(check.split, check.first_bytes, length.at(10)), "bytes_of_row")
        progress_then, expects = Staged(pipeline, 10, after, "after"), Staged(pipeline, 10, expected, "expected")

        # ---- 11 LOCAL: a request to map memory, a division, what the pass leaves behind; local memory
        m.d.comb += [
            requests.push_shared.eq(staged(10, acts & check.shared, "asks_maps", reset=True).at(11)),
            requests.shared.thread.eq(thread.at(11)),
            requests.shared.operation.eq(operation_of(m, control.at(11))),
            requests.shared.address.eq(address.at(11)),
            requests.shared.bytes.eq(bytes_of_row.at(11)),
            requests.shared.shift.eq(progress.at(11).skip),
            requests.shared.data.eq(result.at(11)),
            divider.push.eq(staged(10, acts & this.divide, "divides", reset=True).at(11)),
            divider.division.thread.eq(thread.at(11)),
            divider.division.signed.eq(control.at(11).signed),
            divider.division.modulo.eq(control.at(11).modulo),
            divider.division.dividend.eq(result.at(11)),
            threads.update.eq(valid.at(11)),
            threads.updated.eq(thread.at(11)),
            threads.updated_pc.eq(next_pc.at(11)),
            threads.updated_progress.eq(progress_then.at(11)),
            threads.begun.eq(counts.at(11)),
            threads.updated_left.eq(left_then.at(11)),
            threads.numbers.eq(control.at(11).kind == Kind.CALLX),
            threads.updated_number.eq(called.at(11)),
            threads.updated_tail_calls.eq(tail_calls.at(11) + tail_called.at(11)),
            answers.expect.eq(valid.at(11)),
            answers.expecting.eq(thread.at(11)),
            answers.expected.eq(expects.at(11)),
            self.local.enable.eq(local.at(11)),
            self.local.write.eq(control.at(11).access == Access.STORE),
            self.local.region.eq(region.at(11)),
            self.local.thread.eq(thread.at(11)),
            self.local.buffer.eq(buffer.at(11)),
            self.local.offset.eq(offset.at(11)),
            self.local.even.eq(even.at(11)),
            self.local.size.eq(size.at(11)),
            self.local.lanes.eq(lanes.at(11)),
            self.local.write_data.eq(result.at(11)),
        ]

        # ---- 12, 13: block RAM and multiplier; 14 RESULT: this pass's, or an answer
        joined = staged(12, result.at(12) | Mux(control.at(12).multiply, multiplier.product, 0), "joined")
        m.d.comb += [answers.free.eq(~writes.at(14)), answers.free_soon.eq(~writes.at(12))]
        answered = answers.write & answers.free
        found = Signal(64)
        m.d.comb += [
            found.eq(Mux(local.at(14), self.local.read_data, joined.at(14))),
            generations.answered.eq(answers.thread),
            generations.end.eq(ends.at(14)),
            generations.ended.eq(thread.at(14)),
            generations.ended_generation.eq(generation.at(14)),
            finished.push.eq(ends.at(14)),
            finished.entry.thread.eq(thread.at(14)),
            finished.entry.verdict.eq(joined.at(14)),
            finished.entry.cause.eq(cause.at(14)),
            requests.pushing.eq(thread.at(13)),
            requests.push_call.eq(asking.at(14)),
            requests.call.thread.eq(thread.at(14)),
            requests.call.serves.eq(control.at(14).kind == Kind.SERVICE),
            requests.call.service.eq(control.at(14).service),
            requests.call.call.eq(Mux(no_key.at(14), MapCall.CHECK, control.at(14).call)),
            requests.call.flags.eq(control.at(14).flags),
            requests.call.last.eq(staged(10, ends_call, "ends_call").at(14)),
            requests.call.number.eq(progress.at(14).words),
            requests.call.data.eq(found),
            requests.call.holds.eq(holds.at(14)),
        ]

        m.d.comb += [
            checksum.push.eq(Mux(staged(10, acts & sums, "sums", reset=True).at(14), control.at(14).sum, Sum.NONE)),
            checksum.thread.eq(thread.at(14)),
            checksum.word.eq(found),
            checksum.bytes.eq(Mux(control.at(14).sum == Sum.WORD, piece.at(14), 4)),
            checksum.last.eq(summed.at(14)),
        ]

        # ---- 15 WRITE
        def written(own, answer, name: str):
            """What is written in stage 15, of a pass or of an answer."""
            return staged(14, Mux(answered, answer, own), f"written_{name}").at(15)

        kept = control.at(14)
        value = extended(
            m,
            written(found, answers.value, "word"),
            size=written(kept.size, answers.size, "size"),
            extend=written(kept.extend, answers.extend, "extend"),
            cut=written(kept.cut, 0, "cut"),
        )
        m.d.comb += [
            registers.write.eq(staged(14, writes.at(14) | answered, "written", reset=True).at(15)),
            registers.write_thread.eq(written(thread.at(14), answers.thread, "thread")),
            registers.write_entry.eq(written(entry.at(14), answers.entry, "entry")),
            registers.write_data.value.eq(value),
            registers.write_data.generation.eq(
                written(generation.at(14), generations.answered_generation, "generation")
            ),
        ]

        # ---- Threads begin, go on, end
        def one(condition, which) -> Value:
            return Mux(condition, Const(1, config.threads) << which, 0)[: config.threads]

        m.d.comb += [
            self.start.ready.eq(1),
            threads.start.eq(self.start.valid),
            threads.start_thread.eq(self.start.payload.thread),
            threads.start_pc.eq(self.start.payload.pc),
            threads.budget.eq(self.budget),
            scheduler.wake.eq(
                one(self.start.valid, self.start.payload.thread)
                | one(goes_on.at(10), thread.at(10))
                | one(answers.wakes, answers.woken)
                | one(answers.wakes_late, answers.thread)
                | one(requests.released, requests.released_thread)
            ),
            scheduler.revoke.eq(one(stops.at(11), thread.at(11))),
        ]
        connect(m, requests.map, flipped(self.map.request))
        connect(m, requests.engine, flipped(self.engine.word))
        connect(m, requests.service, flipped(self.service))
        connect(m, flipped(self.map.answer), answers.map)
        connect(m, flipped(self.engine.answer), answers.engine)
        connect(m, flipped(self.answer), answers.service)
        # One of the two; neither keeps the other waiting for long, as each of its threads has to issue in between.
        with m.If(checksum.answer.valid):
            connect(m, checksum.answer, answers.unit)
        with m.Else():
            connect(m, divider.answer, answers.unit)
        connect(m, finished.pop, flipped(self.finish))

        # ---- What is seen of it outside
        passes = acts & ~repeats
        retires = staged(10, (passes & ~calls) | (acts & (copied | finds_result)), "retires", reset=True)
        m.d.comb += [
            retirement.passes.eq(retires.at(11)),
            retirement.answers.eq(answers.engine_done),
            self.retired.eq(retirement.retired),
        ]
        if config.trace:
            of_dst, of_src = control_10.to == Register.DST, control_10.to == Register.SRC
            number = Mux(of_dst, instruction.at(10).dst, Mux(of_src, instruction.at(10).src, control_10.to))
            trace, kept = self.retire_trace, control.at(15)
            m.d.comb += [
                trace.valid.eq(staged(10, passes, "passes", reset=True).at(15)),
                trace.thread.eq(thread.at(15)),
                trace.pc.eq(pc.at(15).slot),
                trace.next_pc.eq(next_pc.at(15).slot),
                trace.pending.eq(staged(10, waits, "pending").at(15)),
                trace.write.eq(kept.write & ~Value.cast(kept.to).matches(Register.LINK, Register.FIRMWARE_LINK)),
                trace.register.eq(staged(10, number, "number").at(15)),
                trace.value.eq(Mux(kept.write, value, joined.at(15))),
                trace.sampled.eq(kept.sampled),
                trace.memory.eq(((kept.access != Access.NONE) & (kept.kind == Kind.PLAIN))
                                | (progress.at(15).step == Step.FETCH)),
                trace.address.eq(address.at(15) - progress.at(15).skip),
                expected.register.eq(number),
                self.result_trace.valid.eq(staged(14, answers.done & answers.final, "answered", reset=True).at(15)),
                self.result_trace.thread.eq(staged(14, answers.thread, "answered_thread").at(15)),
                self.result_trace.write.eq(staged(14, answers.write, "answered_write").at(15)),
                self.result_trace.register.eq(staged(14, answers.register, "answered_register").at(15)),
                self.result_trace.value.eq(value),
            ]  # fmt: skip
        return m

    def _pc(self, pc, distance) -> Value:
        """A ProgramCounter `distance` slots behind `pc`, which may be the slot right behind the store."""
        slot = Value.cast(pc) + distance
        bits = len(pc.slot)
        return Cat(slot[:bits], slot[bits:].any())

    def _code(self, address) -> Value:
        """The ProgramCounter of a code address. What lies between two slots lies outside the store."""
        within, bits = ceil_log2(addresses.CODE_SLOT_BYTES), exact_log2(self.config.program_slots)
        outside = address[within + bits : _CODE_BITS].any() | address[:within].any()
        return Cat(address[within : within + bits], outside)
