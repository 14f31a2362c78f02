package link

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// realHeaders finds folders with NVIDIA's cuda.h: those in VITGEN_CUDA_HEADERS,
// separated by colons, and where an installation puts it.
func realHeaders(t *testing.T) []string {
	t.Helper()
	dirs := append(filepath.SplitList(os.Getenv("VITGEN_CUDA_HEADERS")), "/usr/local/cuda/include", "/opt/cuda/include")
	var found []string
	for _, d := range dirs {
		if _, err := os.Stat(filepath.Join(d, "cuda.h")); err == nil {
			found = append(found, d)
		}
	}
	if len(found) == 0 {
		t.Skip("no cuda.h of NVIDIA's is installed; name folders with one in VITGEN_CUDA_HEADERS " +
			"(pip's nvidia-cuda-runtime-cu11 and -cu12 and nvidia-cuda-runtime bring one)")
	}
	return found
}

var (
	number   = regexp.MustCompile(`(?m)^  (CU\w+) = (\d+)`)
	form     = regexp.MustCompile(`(?m)^#define (cu\w+) (cu\w+)$`)
	function = regexp.MustCompile(`(?ms)^CUresult (cu\w+)(\(.*?\));`)
)

// assertions is a C file that compiles with a cuda.h iff it agrees with ours
// about every number, about the form a name means, and about parameters.
func assertions(version int) string {
	// What newer headers mean by a name, where that is another thing.
	other := map[string]bool{}
	if version >= 13000 {
		other["cuCtxCreate"] = true
	}
	if version >= 12080 {
		other["cuEventElapsedTime"] = true
	}
	ours := string(Header)
	var c strings.Builder
	fmt.Fprintf(&c, "#include <cuda.h>\n#define TEXT_OF(x) #x\n#define TEXT(x) TEXT_OF(x)\n")
	for _, m := range number.FindAllStringSubmatch(ours, -1) {
		fmt.Fprintf(&c, "_Static_assert(%s == %s, \"number\");\n", m[1], m[2])
	}
	forms := map[string]string{}
	for _, m := range form.FindAllStringSubmatch(ours, -1) {
		forms[m[1]] = m[2]
	}
	for _, m := range function.FindAllStringSubmatch(ours, -1) {
		name, want := m[1], m[1]
		if forms[name] != "" {
			want = forms[name]
		}
		if other[name] {
			continue
		}
		fmt.Fprintf(&c, "_Static_assert(__builtin_strcmp(TEXT(%s), \"%s\") == 0, \"form\");\n", name, want)
		fmt.Fprintf(&c, "_Static_assert(__builtin_types_compatible_p(__typeof__(&%s), CUresult (*)%s), \"type\");\n", name, m[2])
	}
	return c.String()
}

func compile(t *testing.T, source string, includes ...string) error {
	t.Helper()
	file := filepath.Join(t.TempDir(), "check.c")
	if err := os.WriteFile(file, []byte(source), 0o666); err != nil {
		t.Fatal(err)
	}
	args := []string{"-std=gnu11", "-fsyntax-only", file}
	for _, dir := range includes {
		args = append(args, "-I"+dir)
	}
	if out, err := exec.Command("cc", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// TestOurHeader: the assertions hold for our header, and are as many as they
// should be.
func TestOurHeader(t *testing.T) {
	c := assertions(0)
	if n := strings.Count(c, "\"number\""); n < 140 {
		t.Errorf("%d numbers", n)
	}
	if n, m := strings.Count(c, "\"type\""), strings.Count(string(Header), "\nCUresult "); n != m || n < 60 {
		t.Errorf("%d functions of %d", n, m)
	}
	if err := compile(t, c, "include"); err != nil {
		t.Error(err)
	}
	if err := compile(t, c+"_Static_assert(CU_CTX_MAP_HOST == 9, \"\");", "include"); err == nil {
		t.Error("a wrong number is not noticed")
	}
}

// TestForwarders: the library has every function of the header.
func TestForwarders(t *testing.T) {
	for _, m := range function.FindAllStringSubmatch(string(Header), -1) {
		if !regexp.MustCompile(`FORWARD\(` + m[1] + `,\s`).Match(Stub) {
			t.Errorf("the library lacks %s", m[1])
		}
	}
}

// TestAgainstNVIDIA holds our header to NVIDIA's, and builds runtime/cuda,
// package cu with it, with them: alone, or, from CUDA 13 on, behind ours.
func TestAgainstNVIDIA(t *testing.T) {
	ours, err := filepath.Abs("include")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range realHeaders(t) {
		text, err := os.ReadFile(filepath.Join(dir, "cuda.h"))
		if err != nil {
			t.Fatal(err)
		}
		m := regexp.MustCompile(`(?m)^#define CUDA_VERSION (\d+)`).FindSubmatch(text)
		if m == nil {
			t.Errorf("%s: cuda.h says no version", dir)
			continue
		}
		version, _ := strconv.Atoi(string(m[1]))
		t.Run(fmt.Sprintf("%d.%d", version/1000, version%1000/10), func(t *testing.T) {
			if err := compile(t, assertions(version), dir); err != nil {
				t.Error(err)
			}
			flags := "-I" + dir
			if version >= 13000 {
				flags = "-I" + ours + " " + flags
			}
			build := exec.Command("go", "build", "-tags", "cuda", "github.com/vitgen/vitgen/runtime/cuda")
			build.Env = append(os.Environ(), "CGO_CFLAGS="+flags)
			if out, err := build.CombinedOutput(); err != nil {
				t.Errorf("with %s: %v\n%s", flags, err, out)
			}
		})
	}
}
