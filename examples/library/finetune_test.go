package library_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/vitgen/vitgen/generated/vit_tiny"
	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/safetensors"
	"github.com/vitgen/vitgen/runtime/transfer"
)

// Weights of another model with the same body: their names begin with
// "model.", and their head is for 100 classes.
func Example_fineTune() {
	m, err := vit_tiny.New(runtime.Options{Device: "cpu"})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	file, remove := foreign(m)
	defer remove()

	rule, err := transfer.ParseRename(`^model\.=`)
	if err != nil {
		log.Fatal(err)
	}
	report, err := transfer.Init(m.Session, file, transfer.Options{Rename: []transfer.Rename{rule}, ResetHead: true})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(report.Count(transfer.Taken), "parameters taken")
	for _, p := range report.Params {
		if p.How != transfer.Taken {
			fmt.Println(p.How, p.Name, "-", p.Note)
		}
	}
	// Output:
	// 30 parameters taken
	// reset head.weight - initial values instead of the file's [100 64]
	// reset head.bias - initial values instead of the file's [100]
}

// foreign makes such a file of a model's own weights.
func foreign(m *vit_tiny.Model) (file string, remove func()) {
	dir, err := os.MkdirTemp("", "vitgen")
	if err != nil {
		log.Fatal(err)
	}
	file = filepath.Join(dir, "foreign.safetensors")
	if err := m.Save(file); err != nil {
		log.Fatal(err)
	}
	f, err := safetensors.Read(file)
	if err != nil {
		log.Fatal(err)
	}
	for i := range f.Tensors {
		t := &f.Tensors[i]
		switch t.Name {
		case "head.weight":
			*t = safetensors.FromFloat32s(t.Name, []int{100, 64}, make([]float32, 6400))
		case "head.bias":
			*t = safetensors.FromFloat32s(t.Name, []int{100}, make([]float32, 100))
		}
		t.Name = "model." + t.Name
	}
	if err := safetensors.Write(file, f); err != nil {
		log.Fatal(err)
	}
	return file, func() { os.RemoveAll(dir) }
}
