// Block RAM of the ECP5, written from Lattice's memory usage guide (FPGA-TN-02204), as far as hdl/memory.py uses it:
// positive edges, chip selects 000, write mode NORMAL, output registers without reset or none, both sides of one width.
//
// A read of a word that the other side writes in the same clock gives noise, and so does a word that both sides write:
// the guide promises neither.

module DP16KD #(
    parameter integer DATA_WIDTH_A = 18, parameter integer DATA_WIDTH_B = 18,
    parameter REGMODE_A = "NOREG", parameter REGMODE_B = "NOREG",
    parameter WRITEMODE_A = "NORMAL", parameter WRITEMODE_B = "NORMAL",
    parameter RESETMODE = "SYNC", parameter GSR = "ENABLED",
    parameter CSDECODE_A = "0b000", parameter CSDECODE_B = "0b000"
) (
    input CLKA, CLKB, CEA, CEB, OCEA, OCEB, WEA, WEB, RSTA, RSTB,
    input CSA0, CSA1, CSA2, CSB0, CSB1, CSB2,
    input ADA0, ADA1, ADA2, ADA3, ADA4, ADA5, ADA6, ADA7, ADA8, ADA9, ADA10, ADA11, ADA12, ADA13,
    input ADB0, ADB1, ADB2, ADB3, ADB4, ADB5, ADB6, ADB7, ADB8, ADB9, ADB10, ADB11, ADB12, ADB13,
    input DIA0, DIA1, DIA2, DIA3, DIA4, DIA5, DIA6, DIA7, DIA8,
    input DIA9, DIA10, DIA11, DIA12, DIA13, DIA14, DIA15, DIA16, DIA17,
    input DIB0, DIB1, DIB2, DIB3, DIB4, DIB5, DIB6, DIB7, DIB8,
    input DIB9, DIB10, DIB11, DIB12, DIB13, DIB14, DIB15, DIB16, DIB17,
    output DOA0, DOA1, DOA2, DOA3, DOA4, DOA5, DOA6, DOA7, DOA8,
    output DOA9, DOA10, DOA11, DOA12, DOA13, DOA14, DOA15, DOA16, DOA17,
    output DOB0, DOB1, DOB2, DOB3, DOB4, DOB5, DOB6, DOB7, DOB8,
    output DOB9, DOB10, DOB11, DOB12, DOB13, DOB14, DOB15, DOB16, DOB17
);
    wire [13:0] ada = {ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0};
    wire [13:0] adb = {ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0};
    wire [17:0] dia = {DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9,
                       DIA8, DIA7, DIA6, DIA5, DIA4, DIA3, DIA2, DIA1, DIA0};
    wire [17:0] dib = {DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9,
                       DIB8, DIB7, DIB6, DIB5, DIB4, DIB3, DIB2, DIB1, DIB0};
    reg [35:0] latch_a = 0, latch_b = 0, register_a = 0, register_b = 0;
    wire wide = DATA_WIDTH_A == 36;

    initial begin
        if (REGMODE_A != REGMODE_B || (REGMODE_A != "OUTREG" && REGMODE_A != "NOREG") || WRITEMODE_A != "NORMAL" || WRITEMODE_B != "NORMAL"
            || CSDECODE_A != "0b000" || CSDECODE_B != "0b000" || DATA_WIDTH_A != DATA_WIDTH_B) begin
            $display("DP16KD: a mode that this model does not have");
            $fatal;
        end
    end

    // Contents: 512 words of 36 bits. A bit's place: word, then which of its four bytes, then the bit in it. Without
    // parity (widths 1, 2, 4) a byte has 8 bits.
    reg [35:0] array [0:511];
    integer i;
    initial for (i = 0; i < 512; i = i + 1) array[i] = 0;

    function automatic integer place(input integer width, input [13:0] address);  // first bit in the 36-bit word
        case (width)
            1: place = 9 * address[4:3] + address[2:0];
            2: place = 9 * address[4:3] + 2 * address[2:1];
            4: place = 9 * address[4:3] + 4 * address[2];
            9: place = 9 * address[4:3];
            18: place = 18 * address[4];
            default: place = 0;
        endcase
    endfunction

    function automatic [35:0] lanes(input integer width, input [13:0] address);  // byte enables, at the word's bottom
        case (width)
            18: lanes = {18'b0, {9{address[1]}}, {9{address[0]}}};
            36: lanes = {{9{address[3]}}, {9{address[2]}}, {9{address[1]}}, {9{address[0]}}};
            default: lanes = (36'b1 << width) - 1;
        endcase
    endfunction

    wire on_a = CEA && {CSA2, CSA1, CSA0} == 0, on_b = CEB && {CSB2, CSB1, CSB0} == 0;
    wire [35:0] data_a = wide ? {dib, dia} : {18'b0, dia}, data_b = {18'b0, dib};
    integer place_a, place_b;
    reg [35:0] written_a, written_b;  // bits of the 36-bit word
    reg same;
    always @(posedge CLKA) begin
        place_a = place(DATA_WIDTH_A, ada);
        place_b = place(DATA_WIDTH_B, adb);
        same = ada[13:5] == adb[13:5] && place_a == place_b;
        written_a = on_a && WEA ? lanes(DATA_WIDTH_A, ada) << place_a : 0;
        written_b = on_b && WEB ? lanes(DATA_WIDTH_B, adb) << place_b : 0;

        if (OCEA) register_a <= RSTA ? 0 : latch_a;
        if (OCEB) register_b <= RSTB ? 0 : latch_b;
        if (on_a && !WEA) latch_a <= same && |written_b ? 36'hA_5A5A_5A5A : array[ada[13:5]] >> place_a;
        if (on_b && !WEB) latch_b <= same && |written_a ? 36'h5_A5A5_A5A5 : array[adb[13:5]] >> place_b;

        // Blocking, one side after the other: what is read was read above.
        if (|written_a) array[ada[13:5]] = array[ada[13:5]] & ~written_a | data_a << place_a & written_a;
        if (|written_b) array[adb[13:5]] = array[adb[13:5]] & ~written_b
            | (same && |written_a ? ~data_b : data_b) << place_b & written_b;
    end

    // A word of 36 bits is read at side B: its lower half at the pins of side A, the upper half at those of side B.
    wire [35:0] out_a = REGMODE_A == "OUTREG" ? register_a : latch_a, out_b = REGMODE_B == "OUTREG" ? register_b : latch_b;
    wire [17:0] doa = wide ? out_b[17:0] : out_a[17:0];
    wire [17:0] dob = wide ? out_b[35:18] : out_b[17:0];
    assign {DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9,
            DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2, DOA1, DOA0} = doa;
    assign {DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9,
            DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2, DOB1, DOB0} = dob;
endmodule
