package formula

import (
	"encoding/json"
	"os"
	"strconv"
	"testing"
)

// TestVectors holds the package to values that golden/formula.py made.
func TestVectors(t *testing.T) {
	text, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		Hash []struct {
			Name   string
			Values []string
		}
		Value []struct {
			Name, Scale, Offset string
			Values              []string
		}
		Label []struct {
			Classes int
			Values  []int64
		}
		Index []struct {
			Name   string
			Size   int
			Values []int
		}
	}
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, v := range vectors.Hash {
		for i, want := range v.Values {
			checked++
			if w, err := strconv.ParseUint(want, 16, 64); err != nil || Hash(v.Name, uint64(i)) != w {
				t.Errorf("Hash(%q, %d) = %016x, want %s", v.Name, i, Hash(v.Name, uint64(i)), want)
			}
		}
	}
	for _, v := range vectors.Value {
		scale, offset := parse(t, v.Scale), parse(t, v.Offset)
		filled := make([]float32, len(v.Values))
		Fill(filled, v.Name, scale, offset)
		for i, want := range v.Values {
			checked++
			got := Value(v.Name, uint64(i), scale, offset)
			if float64(got) != parse(t, want) || filled[i] != got {
				t.Errorf("Value(%q, %d, %s, %s) = %x, filled %x, want %s", v.Name, i, v.Scale, v.Offset, got, filled[i], want)
			}
		}
	}
	for _, v := range vectors.Label {
		for i, got := range Labels(len(v.Values), v.Classes) {
			checked++
			if got != v.Values[i] {
				t.Errorf("label %d of %d classes = %d, want %d", i, v.Classes, got, v.Values[i])
			}
		}
	}
	for _, v := range vectors.Index {
		for i, got := range Indices(v.Name, len(v.Values), v.Size) {
			checked++
			if got != v.Values[i] {
				t.Errorf("index %d of %s[%d] = %d, want %d", i, v.Name, v.Size, got, v.Values[i])
			}
		}
	}
	if checked < 90 {
		t.Errorf("only %d values in the vectors", checked)
	}
}

func parse(t *testing.T, hex string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(hex, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
