//go:build linux

package sim

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

//go:embed include/*.h runtime/*.h runtime/*.cc driver/*.h driver/*.cc
var sources embed.FS

// DriverFile is the name programs know the CUDA driver by.
const DriverFile = "libcuda.so.1"

// driverFlags compile the simulator and the driver. They are never instrumented.
var driverFlags = []string{"-std=c++17", "-O2", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra"}

// kernelFlags compile a kernel file. Kernels look at shared memory through
// several types. Nothing of a kernel object may be merged with another's.
var kernelFlags = []string{
	"-x", "c++", "-std=c++17", "-DVG_SIM", "-fPIC",
	"-fno-strict-aliasing", "-fvisibility=hidden", "-fno-gnu-unique",
}

// checkFlags report each memory access to the simulator. The compiler's own
// run-time library is not linked.
var checkFlags = []string{"-O1", "-g", "-fsanitize=thread,alignment"}

// Options say how kernels are built.
type Options struct {
	Cache   string   // where results are kept; empty: vitgen/sim in the user's cache
	Checked bool     // instrumented: slower, and the simulator finds faults of memory
	Include []string // more places for #include
	Flags   []string // more flags for g++
}

// BuildDriver returns the path of the simulated driver's libcuda.so.1, built if
// need be. Put its folder into LD_LIBRARY_PATH. cache is as in Options.
func BuildDriver(cache string) (string, error) {
	b, err := open(cache)
	if err != nil {
		return "", err
	}
	defer b.close()
	var objects []string
	for _, name := range files(".cc") {
		object := b.path("driver", ".o", b.headers, read(name), strings.Join(driverFlags, " "))
		args := append(slices.Clone(driverFlags), "-I", "include", "-c", name)
		if err := b.compile(object, args...); err != nil {
			return "", err
		}
		objects = append(objects, object)
	}
	library := filepath.Join(b.path("driver", "", objects...), DriverFile)
	if err := os.MkdirAll(filepath.Dir(library), 0o755); err != nil {
		return "", err
	}
	fresh(filepath.Dir(library))
	args := append([]string{"-shared", "-Wl,-soname," + DriverFile, "-Wl,-z,defs"}, objects...)
	return library, b.compile(library, append(args, "-ldl", "-lpthread")...)
}

// BuildKernels compiles a kernel file for the simulated device and returns the
// path of the object, whose bytes a program passes to cuModuleLoadData.
func BuildKernels(cuFile string, o Options) (string, error) {
	b, err := open(o.Cache)
	if err != nil {
		return "", err
	}
	defer b.close()
	file, err := filepath.Abs(cuFile)
	if err != nil {
		return "", err
	}
	flags := slices.Clone(kernelFlags)
	if o.Checked {
		flags = append(flags, checkFlags...)
	} else {
		flags = append(flags, "-O2")
	}
	flags = append(flags, o.Flags...)
	key := strings.Join(flags, " ")
	flags = append(flags, "-I", "include", "-I", filepath.Dir(file))
	for _, dir := range o.Include {
		if dir, err = filepath.Abs(dir); err != nil {
			return "", err
		}
		flags = append(flags, "-I", dir)
	}
	// What the preprocessor makes of it is all that the result depends on, but
	// for the place of the file.
	out, err := b.gxx(append(slices.Clone(flags), "-E", file)...)
	if err != nil {
		return "", fmt.Errorf("%s: %w", cuFile, err)
	}
	text := strings.ReplaceAll(string(out), filepath.Dir(file)+"/", "")
	object, library := b.path("kernels", ".o", key, text), b.path("kernels", ".so", key, text)
	if fresh(library) {
		return library, nil
	}
	if err := b.compile(object, append(flags, "-c", file)...); err != nil {
		return "", fmt.Errorf("%s: %w", cuFile, err)
	}
	defer os.Remove(object)
	return library, b.compile(library, "-shared", object)
}

// builder works in one cache folder, which it has locked.
type builder struct {
	root, source string
	headers      string
	lock         *os.File
}

func open(root string) (*builder, error) {
	if root == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return nil, err
		}
		root = filepath.Join(cache, "vitgen", "sim")
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return nil, err
	}
	b := &builder{root: root}
	// Test packages run side by side; one of them builds, the others wait.
	if b.lock, err = os.OpenFile(filepath.Join(root, "lock"), os.O_CREATE|os.O_RDWR, 0o644); err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(b.lock.Fd()), syscall.LOCK_EX); err != nil {
		b.close()
		return nil, fmt.Errorf("%s: %w", b.lock.Name(), err)
	}
	for _, name := range files(".h") {
		b.headers += name + "\n" + read(name)
	}
	b.prune()
	if err := b.unpack(); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *builder) close() { b.lock.Close() }

// prune removes what nobody has asked for in a month.
func (b *builder) prune() {
	entries, err := os.ReadDir(b.root)
	if err != nil {
		return // it is only housekeeping
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && e.Name() != "lock" && time.Since(info.ModTime()) > 30*24*time.Hour {
			os.RemoveAll(filepath.Join(b.root, e.Name()))
		}
	}
}

// fresh says whether a result is there, and notes that it is used.
func fresh(name string) bool {
	now := time.Now()
	return os.Chtimes(name, now, now) == nil
}

// unpack writes the sources where g++ finds them.
func (b *builder) unpack() error {
	all := b.headers
	for _, name := range files(".cc") {
		all += name + "\n" + read(name)
	}
	b.source = b.path("source", "", all)
	if fresh(b.source) {
		return nil
	}
	temp, err := os.MkdirTemp(b.root, "source")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	for _, name := range append(files(".h"), files(".cc")...) {
		to := filepath.Join(temp, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(to, []byte(read(name)), 0o644); err != nil {
			return err
		}
	}
	return os.Rename(temp, b.source)
}

// path names a result after all that it depends on.
func (b *builder) path(kind, suffix string, parts ...string) string {
	h := sha256.New()
	for _, part := range append(parts, compiler()) {
		fmt.Fprintf(h, "%d\n%s", len(part), part)
	}
	return filepath.Join(b.root, kind+"-"+hex.EncodeToString(h.Sum(nil))[:20]+suffix)
}

// compile runs g++ to make a file, unless it is there. It is never there in part.
func (b *builder) compile(to string, args ...string) error {
	if fresh(to) {
		return nil
	}
	temp := to + ".part"
	defer os.Remove(temp)
	if _, err := b.gxx(append(args, "-o", temp)...); err != nil {
		return err
	}
	return os.Rename(temp, to)
}

func (b *builder) gxx(args ...string) ([]byte, error) {
	cmd := exec.Command("g++", args...)
	cmd.Dir = b.source
	var out, messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &messages
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("g++ %s: %w\n%s", strings.Join(args, " "), err, messages.String())
	}
	return out.Bytes(), nil
}

// compiler tells one g++ from another.
var compiler = sync.OnceValue(func() string {
	out, err := exec.Command("g++", "-dumpfullversion", "-dumpmachine").Output()
	if err != nil {
		return ""
	}
	return string(out)
})

// files lists the embedded files with an extension, in order.
func files(extension string) []string {
	var names []string
	err := fs.WalkDir(sources, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && path.Ext(name) == extension {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		panic("BUG: embedded sources: " + err.Error())
	}
	return names
}

func read(name string) string {
	text, err := sources.ReadFile(name)
	if err != nil {
		panic("BUG: embedded sources: " + err.Error())
	}
	return string(text)
}
