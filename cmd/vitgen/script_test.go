package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"vitgen": main})
}

// The scripts in testdata/script use vitgen as people do. VITGEN_UPDATE=1
// rewrites the outputs they compare with.
//
// They have, besides testscript's own: $ROOT, the folder of this module; $BIN,
// which holds nothing but vitgen; the command module NAME, which makes the working folder a module that uses this
// one; the condition [root], for tests that need file permissions; and
// [cudatoolkit], where a CUDA compiler is found even with nothing in PATH. They
// use none unless they say so, whatever there is.
func TestScripts(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	cached, err := goEnv("GOCACHE", "GOMODCACHE")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:           filepath.Join("testdata", "script"),
		UpdateScripts: os.Getenv("VITGEN_UPDATE") == "1",
		Setup: func(env *testscript.Env) error {
			vitgen, err := exec.LookPath("vitgen")
			if err != nil {
				return err
			}
			env.Vars = append(env.Vars, "ROOT="+root, "BIN="+filepath.Dir(vitgen), "GOFLAGS=-mod=mod",
				"VITGEN_NVCC=none", "VITGEN_CACHE="+filepath.Join(env.WorkDir, ".cache"))
			env.Vars = append(env.Vars, cached...)
			return nil
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "root":
				return os.Getuid() == 0, nil
			case "cudatoolkit":
				return hasToolkit(), nil
			}
			return false, fmt.Errorf("unknown condition %s", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"module": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(writeModule(root, ts.MkAbs("."), args[0]))
			},
		},
	})
}

// hasToolkit reports whether a CUDA compiler lies where no variable leads to.
func hasToolkit() bool {
	for _, pattern := range []string{"/usr/local/cuda/bin/nvcc", "/usr/local/cuda/*/libnvrtc.so*", "/usr/lib*/libnvrtc.so*", "/usr/lib/*/libnvrtc.so*"} {
		if found, err := filepath.Glob(pattern); err != nil || len(found) > 0 {
			return true
		}
	}
	return false
}

// goEnv gives settings of the Go tool as NAME=value.
func goEnv(names ...string) ([]string, error) {
	out, err := exec.Command("go", append([]string{"env"}, names...)...).Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	values := strings.Split(strings.TrimSpace(string(out)), "\n")
	for i, v := range values {
		values[i] = names[i] + "=" + v
	}
	return values, nil
}

// writeModule makes dir a module that takes vitgen from root and everything
// else in the versions that vitgen takes it in.
func writeModule(root, dir, name string) error {
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return err
	}
	sum, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		return err
	}
	const vitgen = "github.com/vitgen/vitgen"
	text := strings.Replace(string(mod), "module "+vitgen, "module "+name, 1)
	text += fmt.Sprintf("\nrequire %s v0.0.0\nreplace %[1]s => %q\n", vitgen, root)
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(text), 0o666); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "go.sum"), sum, 0o666)
}
