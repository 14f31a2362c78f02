package python

import (
	"bytes"
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

//go:embed onnx.py
var onnxScript string

// ONNX is a model file with something to run it on.
type ONNX struct {
	Model   string    // file
	Image   []float32 // some samples
	Batches []int     // runs: each of so many samples, the first ones
}

// RunONNX checks the files with onnx's checker, strictly, and runs them with
// ONNX Runtime in one process. It returns the logits of every run of every
// case, and skips the test where there is no Python that has both packages.
// What the runtime warns of fails the test.
func RunONNX(t testing.TB, cases []ONNX) [][][]float64 {
	t.Helper()
	python := Find(t, "onnx", "onnxruntime")
	type question struct {
		Model   string `json:"model"`
		Image   string `json:"image"`
		Batches []int  `json:"batches"`
	}
	var questions []question
	dir := t.TempDir()
	for i, c := range cases {
		image := filepath.Join(dir, strconv.Itoa(i)+".f32")
		data, err := binary.Append(nil, binary.LittleEndian, c.Image)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(image, data, 0o666); err != nil {
			t.Fatal(err)
		}
		questions = append(questions, question{c.Model, image, c.Batches})
	}
	in, err := json.Marshal(questions)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, "-c", onnxScript)
	cmd.Stdin = bytes.NewReader(in)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		t.Fatalf("python: %v\n%s", err, complaints.Bytes())
	}
	if complaints.Len() > 0 {
		t.Errorf("ONNX Runtime says:\n%s", complaints.Bytes())
	}
	var answers [][][]float64
	if err := json.Unmarshal(out.Bytes(), &answers); err != nil {
		t.Fatalf("%v\n%s", err, out.Bytes())
	}
	return answers
}
