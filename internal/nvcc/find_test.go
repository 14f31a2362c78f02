package nvcc

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// bare takes away everything that Find looks at, save absolute folders.
func bare(t *testing.T) {
	t.Helper()
	for _, name := range []string{"VITGEN_NVCC", "CUDA_HOME", "CUDA_PATH", "VIRTUAL_ENV", "CONDA_PREFIX", "LD_LIBRARY_PATH", "CC"} {
		t.Setenv(name, "")
	}
	t.Setenv("PATH", "/nowhere")
	t.Chdir(t.TempDir())
}

// installNVCC puts a program there that says it is nvcc of a version.
func installNVCC(t *testing.T, path, version string) string {
	t.Helper()
	return install(t, path, "#!/bin/sh\necho 'Cuda compilation tools, release "+version+", V"+version+".7'\n")
}

func install(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o777); err != nil {
		t.Fatal(err)
	}
	return path
}

// Each place yields to those before it.
func TestFindOrder(t *testing.T) {
	bare(t)
	dir := t.TempDir()
	find := func(explicit, version string) {
		t.Helper()
		c, err := Find(t.Context(), explicit)
		if err != nil || c.Kind != NVCC || c.Version != version+".7" {
			t.Errorf("got %v, %v, want nvcc %s", c, err, version)
		}
	}
	// python3 is a script here, which must be found in PATH.
	packages := filepath.Join(dir, "python")
	install(t, filepath.Join(dir, "bin", "python3"), "#!/bin/sh\necho\necho relative\necho "+packages+"\n")
	t.Setenv("PATH", filepath.Join(dir, "bin"))
	installNVCC(t, filepath.Join(packages, "nvidia", "cu13", "bin", "nvcc"), "12.1")
	if !isFile("/usr/local/cuda/bin/nvcc") {
		find("", "12.1")
	}

	env := filepath.Join(dir, "env")
	installNVCC(t, filepath.Join(env, "lib", "python3.11", "site-packages", "nvidia", "cuda_nvcc", "bin", "nvcc"), "12.2")
	t.Setenv("VIRTUAL_ENV", env)
	if !isFile("/usr/local/cuda/bin/nvcc") {
		find("", "12.2")
	}

	project := filepath.Join(dir, "project")
	installNVCC(t, filepath.Join(project, Venv, "lib", "python3.11", "site-packages", "nvidia", "cu13", "bin", "nvcc"), "12.3")
	if err := os.MkdirAll(filepath.Join(project, "deep", "below"), 0o777); err != nil {
		t.Fatal(err)
	}
	t.Chdir(filepath.Join(project, "deep", "below"))
	if !isFile("/usr/local/cuda/bin/nvcc") {
		find("", "12.3")
	}

	t.Setenv("CUDA_HOME", filepath.Join(dir, "home"))
	installNVCC(t, filepath.Join(dir, "home", "bin", "nvcc"), "12.4")
	find("", "12.4")

	installNVCC(t, filepath.Join(dir, "bin", "nvcc"), "12.5")
	find("", "12.5")

	t.Setenv("VITGEN_NVCC", installNVCC(t, filepath.Join(dir, "own-nvcc"), "12.6"))
	find("", "12.6")
	find(installNVCC(t, filepath.Join(dir, "other", "bin", "nvcc"), "12.7"), "12.7")
	find(filepath.Join(dir, "other"), "12.7")
	find(packages, "12.1")
	find("nvcc", "12.5") // a command

	// What is found and does not run is passed over.
	t.Setenv("VITGEN_NVCC", "")
	install(t, filepath.Join(dir, "bin", "nvcc"), "#!/bin/sh\nexit 1\n")
	find("", "12.4")
	installNVCC(t, filepath.Join(dir, "bin", "nvcc"), "10.2")
	find("", "12.4")

	if _, err := Find(t.Context(), "none"); !errors.Is(err, ErrNone) {
		t.Error(err)
	}
	t.Setenv("VITGEN_NVCC", "none")
	if _, err := Find(t.Context(), ""); !errors.Is(err, ErrNone) {
		t.Error(err)
	}
}

// What was named must work.
func TestFindNamed(t *testing.T) {
	bare(t)
	dir := t.TempDir()
	for _, test := range []struct{ name, want string }{
		{filepath.Join(dir, "missing"), "no such file or command"},
		{dir, "neither bin/nvcc nor libnvrtc.so is in this folder"},
		{install(t, filepath.Join(dir, "fails"), "#!/bin/sh\nexit 3\n"), "does not run: exit status 3"},
		{install(t, filepath.Join(dir, "other"), "#!/bin/sh\necho gcc 12\n"), "is not nvcc: its --version names none"},
		{installNVCC(t, filepath.Join(dir, "old"), "9.0"), "is too old: it takes CUDA 11 or newer"},
		{install(t, filepath.Join(dir, "libnvrtc.so.13"), "text"), "there is no C compiler cc"},
	} {
		for _, from := range []string{"--nvcc", "VITGEN_NVCC"} {
			explicit := test.name
			if from == "VITGEN_NVCC" {
				t.Setenv(from, test.name)
				explicit = ""
			}
			_, err := Find(t.Context(), explicit)
			if err == nil || !strings.HasPrefix(err.Error(), from+" "+test.name+": ") || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: got %v, want %q", from, err, test.want)
			}
		}
		t.Setenv("VITGEN_NVCC", "")
	}
}

// With nothing there, the error says what to install, in one line.
func TestFindNothing(t *testing.T) {
	if len(inHome("/usr/local/cuda")) > 0 {
		t.Skip("this machine has a CUDA toolkit in /usr/local/cuda")
	}
	bare(t)
	for _, dir := range linkerFolders() {
		if len(libraries(dir)) > 0 {
			t.Skip("this machine has NVRTC in ", dir)
		}
	}
	_, err := Find(t.Context(), "")
	if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "pip install nvidia-cuda-nvcc") || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %q", err)
	}
	// What is broken is named.
	dir := t.TempDir()
	install(t, filepath.Join(dir, "bin", "nvcc"), "#!/bin/sh\nexit 7\n")
	t.Setenv("CUDA_HOME", dir)
	_, err = Find(t.Context(), "")
	if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "bin/nvcc does not run: exit status 7") {
		t.Errorf("got %q", err)
	}
}
