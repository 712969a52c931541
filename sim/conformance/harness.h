// What Python calls. cffi reads this file as it is: declarations only, no preprocessor.

typedef struct {
    uint64_t r0;
    uint32_t cause; // spec.causes.Cause
    uint32_t pc;    // slot of the instruction that came next at the end
    int32_t status; // 0; 1: no instruction retired for a long time; 2: the trace and the verdict disagree on r0
} machine_end;

// A machine fresh from reset, to the end of its program.
machine_end machine_run(const uint8_t *program, uint32_t slots, const uint8_t *memory, uint32_t length,
                        uint32_t data_end, uint32_t budget);
