package safetensors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vitgen/vitgen/internal/python"
)

// raw builds a file from header text and data.
func raw(header string, data int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, data)...)
}

func sample() *File {
	return &File{
		Metadata: map[string]string{"z": "<last> & \"quoted\"", "a": "größe\n"},
		Tensors: []Tensor{
			{Name: "bytes", DType: U8, Shape: []int{3}, Data: []byte{1, 2, 255}},
			FromFloat32s("empty", []int{0, 7}, nil),
			FromFloat64s("f64", []int{2}, []float64{math.Pi, math.Inf(-1)}),
			{Name: "half", DType: F16, Shape: []int{2}, Data: []byte{0, 0x3c, 1, 0x80}},
			FromInt64s("label", []int{2, 1}, []int64{-1, 1 << 62}),
			FromFloat32s("w.größe", []int{2, 2}, []float32{1, -2, 0.1, float32(math.Copysign(0, -1))}),
			FromFloat64s("zero-d", nil, []float64{4.5}),
		},
	}
}

func TestRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.safetensors")
	f := sample()
	if err := Write(path, f); err != nil {
		t.Fatal(err)
	}
	got, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range got.Tensors { // nil and empty are the same shape and the same data
		if len(got.Tensors[i].Shape) == 0 {
			got.Tensors[i].Shape = nil
		}
		if len(got.Tensors[i].Data) == 0 {
			got.Tensors[i].Data = []byte{}
		}
	}
	if diff := cmp.Diff(f, got); diff != "" {
		t.Errorf("what was written is not what was read (-want +got):\n%s", diff)
	}
	if got.Tensor("label") == nil || got.Tensor("nothing") != nil {
		t.Error("Tensor finds the wrong names")
	}
}

func TestWriteIgnoresOrder(t *testing.T) {
	f, g := sample(), sample()
	for i := range len(g.Tensors) / 2 {
		j := len(g.Tensors) - 1 - i
		g.Tensors[i], g.Tensors[j] = g.Tensors[j], g.Tensors[i]
	}
	var a, b bytes.Buffer
	if err := errors.Join(Encode(&a, f), Encode(&b, g)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("the order of Tensors shows in the file")
	}
	data := a.Len() - int(binary.LittleEndian.Uint64(a.Bytes())) - 8
	if (a.Len()-data)%8 != 0 {
		t.Error("the data is not aligned to 8 bytes")
	}
}

func TestConvert(t *testing.T) {
	halves := map[uint16]float64{0x3c00: 1, 0xc000: -2, 0x0001: math.Ldexp(1, -24), 0x03ff: math.Ldexp(1023, -24),
		0x7bff: 65504, 0x7c00: math.Inf(1), 0xfc00: math.Inf(-1), 0x3555: 0.333251953125}
	for bits, want := range halves {
		h := Tensor{DType: F16, Shape: []int{1}, Data: binary.LittleEndian.AppendUint16(nil, bits)}
		if got := h.Float64s()[0]; got != want {
			t.Errorf("half %#04x = %v, want %v", bits, got, want)
		}
	}
	if !math.IsNaN(half(0x7e00)) {
		t.Error("half 0x7e00 is not NaN")
	}
	bf := Tensor{DType: BF16, Shape: []int{2}, Data: []byte{0x80, 0x3f, 0x49, 0xc0}}
	if diff := cmp.Diff([]float32{1, -3.140625}, bf.Float32s()); diff != "" {
		t.Error(diff)
	}
	i32 := Tensor{DType: I32, Shape: []int{2}, Data: []byte{0xff, 0xff, 0xff, 0xff, 2, 1, 0, 0}}
	if diff := cmp.Diff([]int64{-1, 258}, i32.Int64s()); diff != "" {
		t.Error(diff)
	}
	wide := FromFloat64s("", []int{1}, []float64{0.1})
	if got := wide.Float32s()[0]; got != 0.1 {
		t.Errorf("0.1 as float32 = %v", got)
	}
}

// TestHostile: each fault is refused, and the error says which tensor and why.
func TestHostile(t *testing.T) {
	tests := []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "truncated: 0 bytes"},
		{"of torch.save", []byte("PK\x03\x04\x00\x00\x08\x08\x00\x00"), "save_file"},
		{"short length", []byte{1, 2, 3}, "truncated: 3 bytes"},
		{"header past end", raw(`{}`, 0)[:9], "truncated: header of 2 bytes, file has 1 left"},
		{"huge header", append(bytes.Repeat([]byte{0xff}, 8), '{'), "exceeds the limit"},
		{"no header", raw(``, 0), "not a JSON object"},
		{"leading space", raw(` {}`, 0), "not a JSON object"},
		{"not UTF-8", raw("{\"\xff\":1}", 0), "not UTF-8"},
		{"cut JSON", raw(`{"a":{"dtype":"F32"`, 0), `tensor "a": unexpected EOF`},
		{"text after", raw(`{} {}`, 0), "more text follows"},
		{"duplicate tensor", raw(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2), `duplicate key "a"`},
		{"duplicate escaped", raw(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\u0061":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2), `duplicate key "a"`},
		{"duplicate field", raw(`{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1), `tensor "a": duplicate key "dtype"`},
		{"duplicate metadata", raw(`{"__metadata__":{"k":"1","k":"2"}}`, 0), `__metadata__: duplicate key "k"`},
		{"metadata number", raw(`{"__metadata__":{"k":1}}`, 0), "1 where a string belongs"},
		{"unknown field", raw(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":0}}`, 1), `tensor "a": unknown key "x"`},
		{"missing field", raw(`{"a":{"dtype":"U8","shape":[1]}}`, 1), `tensor "a": missing key "data_offsets"`},
		{"unknown dtype", raw(`{"a":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}`, 1), `tensor "a": dtype "F8_E4M3" is not supported`},
		{"tensor is null", raw(`{"a":null}`, 0), `tensor "a": <nil> where "{" belongs`},
		{"negative shape", raw(`{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}`, 1), "-1 where a non-negative"},
		{"fraction", raw(`{"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}}`, 1), "1.0 where a non-negative"},
		{"exponent", raw(`{"a":{"dtype":"U8","shape":[1e0],"data_offsets":[0,1]}}`, 1), "1e0 where a non-negative"},
		{"string shape", raw(`{"a":{"dtype":"U8","shape":["1"],"data_offsets":[0,1]}}`, 1), "1 where a non-negative"},
		{"nested shape", raw(`{"a":{"dtype":"U8","shape":[[1]],"data_offsets":[0,1]}}`, 1), "[ where a non-negative"},
		{"2^63", raw(`{"a":{"dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,1]}}`, 1), "63-bit"},
		{"product overflow", raw(`{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}`, 0), `tensor "a": shape [4294967296 4294967296]`},
		{"rank", raw(`{"a":{"dtype":"U8","shape":[`+strings.Repeat("1,", 64)+`1],"data_offsets":[0,1]}}`, 1), "more than 64 numbers"},
		{"three offsets", raw(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}}`, 1), "more than 2 numbers"},
		{"one offset", raw(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}}`, 1), "1 numbers instead of 2"},
		{"backward", raw(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}}`, 1), "run backward"},
		{"outside", raw(`{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}`, 3), `tensor "a": data_offsets [0, 4] lie outside the file's 3 data bytes`},
		{"overlap", raw(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}`, 3), `tensor "b": data_offsets [1, 3] overlap`},
		{"hole", raw(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}`, 3), `tensor "b": 1 unclaimed bytes`},
		{"size mismatch", raw(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}`, 8), `tensor "a": F32[2] takes 8 bytes`},
		{"trailing", raw(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 3), "2 trailing bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "hostile.safetensors")
			if err := os.WriteFile(path, tt.data, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Read(path)
			if err == nil {
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), path+": ") {
				t.Errorf("error %q, want file %s and %q", err, path, tt.want)
			}
		})
	}
}

func TestReadNotAFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := Read(dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("reading a directory: %v", err)
	}
	if _, err := Read(filepath.Join(dir, "no")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("reading nothing: %v", err)
	}
}

// TestWriteRefuses: a bad File is refused and nothing is left on disk.
func TestWriteRefuses(t *testing.T) {
	tests := map[string]*File{
		"reserved":     {Tensors: []Tensor{FromInt64s("__metadata__", []int{0}, nil)}},
		"not UTF-8":    {Tensors: []Tensor{FromInt64s("\xff", []int{0}, nil)}},
		"two tensors":  {Tensors: []Tensor{FromInt64s("a", []int{0}, nil), FromFloat32s("a", []int{0}, nil)}},
		"do not make":  {Tensors: []Tensor{{Name: "a", DType: F32, Shape: []int{2}, Data: make([]byte, 4)}}},
		"not support":  {Tensors: []Tensor{{Name: "a", DType: "C64"}}},
		"negative dim": {Tensors: []Tensor{{Name: "a", DType: F32, Shape: []int{-1, -1}, Data: make([]byte, 4)}}},
		`metadata "k"`: {Metadata: map[string]string{"k": "\xff"}},
	}
	for want, f := range tests {
		dir := t.TempDir()
		err := Write(filepath.Join(dir, "x"), f)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("error %v, want file and %q", err, want)
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("%s: left %s behind", want, left[0].Name())
		}
	}
}

// TestPython: the reference implementation reads what Write writes, and Read
// reads what it writes.
func TestPython(t *testing.T) {
	python := python.Find(t, "safetensors.numpy")
	dir := t.TempDir()
	if err := Write(filepath.Join(dir, "go"), sample()); err != nil {
		t.Fatal(err)
	}
	script := `
import sys, safetensors, safetensors.numpy as st
with safetensors.safe_open("go", "numpy") as f:
    meta, tensors = f.metadata(), {k: f.get_tensor(k) for k in f.keys()}
assert meta == {"z": '<last> & "quoted"', "a": "größe\n"}, meta
assert tensors["label"].tolist() == [[-1], [1 << 62]] and tensors["zero-d"].shape == () and tensors["empty"].shape == (0, 7)
st.save_file(tensors, "py", meta)
`
	cmd := exec.Command(python, "-c", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("python: %v\n%s", err, out)
	}
	ours, err1 := Read(filepath.Join(dir, "go"))
	theirs, err2 := Read(filepath.Join(dir, "py"))
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(ours, theirs); diff != "" {
		t.Errorf("after a trip through Python (-ours +theirs):\n%s", diff)
	}
}

func FuzzParse(f *testing.F) {
	var b bytes.Buffer
	if err := Encode(&b, sample()); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add(b.Bytes()[:b.Len()-1])
	f.Add(raw(`{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}`, 4))
	f.Add(raw(`{"a":{"dtype":"F32","shape":[0,9223372036854775807],"data_offsets":[0,0]}}`, 0))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse(data)
		if err != nil {
			if _, ok := err.(*Error); !ok {
				t.Fatalf("%T instead of *Error: %v", err, err)
			}
			return
		}
		total := 0
		for i := range file.Tensors {
			x := &file.Tensors[i]
			total += len(x.Data)
			if x.DType.IsFloat() {
				x.Float64s()
				x.Float32s()
			} else {
				x.Int64s()
			}
		}
		if total > len(data) {
			t.Fatalf("%d data bytes from a file of %d", total, len(data))
		}
		var out bytes.Buffer
		if err := Encode(&out, file); err != nil {
			t.Fatalf("what was read does not write: %v", err)
		}
		again, err := Parse(out.Bytes())
		if err != nil || len(again.Tensors) != len(file.Tensors) {
			t.Fatalf("what was written does not read: %v", err)
		}
	})
}
