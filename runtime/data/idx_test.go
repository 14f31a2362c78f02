package data

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// idx is an IDX file.
func idx(magic uint32, dims []int, values []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, magic)
	for _, d := range dims {
		b = binary.BigEndian.AppendUint32(b, uint32(d))
	}
	return append(b, values...)
}

func zip(b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	z.Write(b)
	z.Close()
	return out.Bytes()
}

func TestIDX(t *testing.T) {
	good := idx(idxImages, []int{2, 3, 1}, seq(6))
	for _, file := range [][]byte{good, zip(good)} {
		a, err := parseIDX(bytes.NewReader(file), idxImages)
		if err != nil || !slices.Equal(a.dims, []int{2, 3, 1}) || !bytes.Equal(a.values, seq(6)) {
			t.Errorf("%v %v", a, err)
		}
	}
	flipped := zip(good)
	flipped[len(flipped)-6] ^= 1 // in the check sum
	for what, c := range map[string]struct {
		file []byte
		want string
	}{
		"empty":              {nil, "truncated: the file has 0 of 4 bytes of the magic number"},
		"one byte":           {good[:1], "1 of 4 bytes"},
		"no dimensions":      {good[:9], "1 of 4 bytes of the dimension 1"},
		"truncated":          {good[:len(good)-1], "truncated: the file has 5 of 6 values"},
		"trailing":           {append(slices.Clone(good), 0), "more after the 6 values"},
		"labels":             {idx(idxLabels, []int{6}, seq(6)), "magic number is 0x00000801, want 0x00000803"},
		"floats":             {idx(0x00000d03, []int{1, 1, 1}, seq(4)), "magic number is 0x00000d03"},
		"no samples":         {idx(idxImages, []int{0, 28, 28}, nil), "dimension 0 is 0"},
		"hostile":            {idx(idxImages, []int{1 << 31, 1 << 31, 1 << 31}, nil), "announces more than"},
		"hostile but within": {idx(idxImages, []int{1 << 10, 1 << 10, 1 << 10}, nil), "0 of 1073741824 values"},
		"gzip of nothing":    {zip(nil), "in the gzip stream: truncated"},
		"gzip truncated":     {zip(good)[:20], "truncated"},
		"gzip magic only":    {[]byte{0x1f, 0x8b}, "not a gzip file"},
		"gzip check sum":     {flipped, "checksum"},
		"gzip trailing":      {zip(append(slices.Clone(good), 0)), "more after"},
	} {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, c.file, 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := readIDX(path, idxImages)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), path) {
			t.Errorf("%s: error %v, want one with %q", what, err, c.want)
		}
	}
	if _, err := readIDX(t.TempDir(), idxImages); err == nil {
		t.Error("a directory is accepted")
	}
}

func FuzzIDX(f *testing.F) {
	good := idx(idxImages, []int{2, 3, 1}, seq(6))
	f.Add(good, uint32(idxImages))
	f.Add(zip(good), uint32(idxImages))
	f.Add(idx(idxLabels, []int{3}, seq(3)), uint32(idxLabels))
	f.Add(good[:10], uint32(idxImages))
	f.Add([]byte{0x1f, 0x8b, 8}, uint32(idxLabels))
	f.Fuzz(func(t *testing.T, file []byte, magic uint32) {
		if magic != idxImages {
			magic = idxLabels
		}
		a, err := parseIDX(bytes.NewReader(file), magic)
		if err != nil {
			return
		}
		size := 1
		for _, d := range a.dims {
			size *= d
		}
		if len(a.values) != size || len(a.dims) != int(magic&0xff) {
			t.Errorf("%v with %d values", a.dims, len(a.values))
		}
		if again, err := parseIDX(bytes.NewReader(idx(magic, a.dims, a.values)), magic); err != nil || !bytes.Equal(again.values, a.values) {
			t.Errorf("what was read cannot be written: %v", err)
		}
	})
}

// TestResizeIsPillows compares with files Pillow made (testdata/make_resize.py).
func TestResizeIsPillows(t *testing.T) {
	text, err := os.ReadFile("testdata/resize.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Cases []struct {
			In, Out      [2]int
			Pixels, Want string
		}
	}
	if err := json.Unmarshal(text, &golden); err != nil {
		t.Fatal(err)
	}
	if len(golden.Cases) < 10 {
		t.Fatalf("only %d cases", len(golden.Cases))
	}
	for _, c := range golden.Cases {
		src, err := hex.DecodeString(c.Pixels)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]uint8, c.Out[0]*c.Out[1])
		newResizer(c.In, c.Out).apply(got, src, c.In[1])
		if hex.EncodeToString(got) != c.Want {
			t.Errorf("%v to %v: %x, Pillow makes %s", c.In, c.Out, got, c.Want)
		}
	}
}
