//go:build linux

package sim

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// checkedFlags and fastFlags compile the kernel files of testdata.
var (
	checkedFlags = append([]string{"-Wall", "-Wextra", "-Werror"}, checkFlags...)
	fastFlags    = []string{"-Wall", "-Wextra", "-Werror", "-O2"}
)

// seeds are schedules: in order, backwards, and random ones.
var seeds = []string{"0", "0xffffffffffffffff", "1", "2", "3", "4"}

// fault is what the simulator says of a planted one.
type fault struct {
	name string
	want string // a regular expression
	fast bool   // found without instrumentation too
}

// faults are the planted ones of testdata/planted_*.cc.
var faults = []fault{
	// barriers
	{"read_after_write", `missing barrier: data race: (reads|writes) shared memory\+\d+ \(512 bytes long\)`, false},
	{"write_after_read", `missing barrier: data race: (reads|writes) shared memory`, false},
	{"broadcast", `writes shared memory\+0 \(4 bytes long\) at planted_block.cc:\d+; block 0, thread \d+ read it at planted_block.cc:\d+, and nothing orders the two`, false},
	{"half_words", `missing barrier: data race: writes shared memory\+66`, false},
	{"warp_exchange", `missing barrier within a warp: data race`, false},
	{"ldmatrix_race", `missing barrier within a warp: data race`, false},
	{"hand_over", `missing barrier: data race`, false},
	{"race_within_block", `missing barrier: data race: (reads|writes) y\+\d+ \(256 bytes long\)`, false},
	{"early_exit", `early_exit: divergent barrier: no thread can go on\|  block 0:\|    threads 0-63: wait at vg_sync, planted_block.cc:\d+\|    threads 64-127: exited`, true},
	{"two_barriers", `divergent barrier: thread came to vg_sync at planted_block.cc:\d+, others wait at planted_block.cc:\d+`, true},
	{"too_few_come", `divergent barrier: no thread can go on.*threads 0-63: wait at vg_sync_some`, true},
	{"half_warps_come", `divergent barrier: lanes 0000ffff of warp \d, but not all of it`, true},
	{"counts_differ", `divergent barrier 2: thread came to`, true},
	// shared memory
	{"uninitialized_shared", `uninitialized shared memory: reads 4 bytes at shared memory\+80 \(256 bytes long\)`, false},
	{"left_behind", `left_behind, block 1, thread \d+: uninitialized shared memory`, false},
	{"shared_out_of_bounds", `out of bounds: writes 4 bytes at shared memory\+256 \(256 bytes long\)|touches shared memory\+256`, true},
	{"shared_before_start", `out of bounds: writes 4 bytes at shared memory-4`, false},
	// launches
	{"too_much_shared", `232449 bytes of shared memory, more than the limit of 232448`, true},
	{"too_many_threads", `blocks of 96 threads, more than its launch bound of 64`, true},
	{"empty_grid", `an empty grid`, true},
	// global memory
	{"read_out_of_bounds", `copy, block 1, thread 35: out of bounds: reads 4 bytes at x\+396 \(396 bytes long\) of global memory, at planted_global.cc:\d+`, false},
	{"write_out_of_bounds", `copy, block 1, thread 35: out of bounds: writes 4 bytes at y\+396 \(396 bytes long\)`, false},
	{"write_out_of_page", `out of bounds: (writes 4 bytes at|touches) y\+4096 \(4096 bytes long\)`, true},
	{"before_start", `out of bounds: reads 4 bytes at x-4`, false},
	{"use_after_free", `use after free: reads 4 bytes at x|touches x\+\d+ \(400 bytes long, freed\)`, true},
	{"host_memory", `not on the device: writes 4 bytes`, false},
	{"null_pointer", `null pointer: writes 4 bytes|touches 0x|touches \(nil\)`, true},
	{"uninitialized_global", `uninitialized global memory: reads 4 bytes at x\+396`, false},
	{"output_never_written", `output never written: 4 of 400 bytes, the first at y\+396`, false},
	{"forbidden_rows", `forbidden: reads 4 bytes at x\+396`, false},
	{"misaligned_vector", `misaligned: accesses a 'const struct vg_float4' at x\+\d+ .*not 16-byte aligned|misaligned vector access`, true},
	{"misaligned_parts", `misaligned: accesses a 'const struct vg_float4'`, false},
	{"misaligned_long", `misaligned: accesses a 'const uint64_t'.*not 8-byte aligned`, false},
	{"misaligned_int", `misaligned: accesses a 'const uint32_t'.*not 4-byte aligned`, false},
	// blocks
	{"race_of_writes", `data race between blocks: writes y\+\d+ .*block \d+, thread \d+ wrote it`, false},
	{"race_between_blocks", `data race between blocks: (reads|writes) y`, false},
	{"race_with_readers", `data race between blocks: (reads|writes) y\+0`, false},
	{"written_after_arrival", `data race between blocks: (reads|writes) part`, false},
	{"two_levels", `data race between blocks: (reads|writes) part`, false},
	{"counter_not_zero", `counter counters\+0 .*is not zero after the launch: 4 of 5 blocks`, true},
	{"counter_too_soon", `counter counters\+0 .*is not zero after the launch: 1 of 3 blocks`, true},
	{"counter_uninitialized", `uninitialized global memory: vg_arrive_last on|counter counters\+0 .*is 4294967295 before`, true},
	// warps
	{"mask_too_small", `partial mask: shuffle from lane \d+, which mask 0000ffff does not name`, true},
	{"mask_without_caller", `partial mask: 0000ffff does not name lane \d+, which takes part`, true},
	{"shuffle_from_outside", `partial mask: shuffle from lane 16`, true},
	{"lanes_missing", `lanes missing`, true},
	{"block_of_half_warps", `partial warp: mask ffffffff names lanes that the warp does not have`, true},
	{"diverged_shuffles", `lanes missing, the warp has diverged`, true},
	{"shuffle_against_barrier", `no thread can go on.*wait at a shuffle.*wait at vg_sync`, true},
	{"ldmatrix_misaligned", `misaligned: ldmatrix row at shared memory\+488`, true},
	{"ldmatrix_out_of_bounds", `out of bounds: ldmatrix reads 16 bytes at shared memory\+512`, true},
	{"ldmatrix_lanes_missing", `lanes missing`, true},
	{"mma_lanes_missing", `lanes missing`, true},
	// asynchronous copies
	{"async_not_committed", `unwaited cp.async: reads 4 bytes`, false},
	{"async_not_waited", `unwaited cp.async: reads 4 bytes`, false},
	{"async_waits_too_little", `unwaited cp.async: reads 4 bytes`, false},
	{"async_read_on_the_way", `unwaited cp.async: (reads|cp.async writes)`, false},
	{"async_overwritten", `unwaited cp.async: writes 4 bytes`, false},
	{"async_no_barrier", `missing barrier: data race`, false},
	{"async_misaligned_source", `misaligned: cp.async of 16 bytes from x\+500`, true},
	{"async_misaligned_target", `misaligned: cp.async of 16 bytes to shared memory\+504`, true},
	{"async_source_out_of_bounds", `out of bounds: cp.async reads 16 bytes at x\+496 \(496 bytes long\)`, true},
	{"async_target_out_of_bounds", `out of bounds: cp.async writes 16 bytes at shared memory\+512`, true},
	{"async_source_uninitialized", `uninitialized global memory: cp.async reads 16 bytes at x\+496`, false},
	// a thread's own
	{"stack_overflow", `stack overflow of a simulated thread`, true},
	{"division_by_zero", `integer division by zero`, true},
}

// TestPlantedFaults runs each planted fault and its twin under several
// schedules: in every one of them the fault is found, and the twin is not
// complained about.
func TestPlantedFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("NOT TESTED: planted faults take half a minute to compile")
	}
	t.Run("checked", func(t *testing.T) {
		said := runPlanted(t, checkedFlags)
		for _, f := range faults {
			f.check(t, said, true)
		}
		for name := range said {
			if !known(name) {
				t.Errorf("no expectation for %s", name)
			}
		}
	})
	// What is found where nothing is instrumented; the rest may pass.
	t.Run("fast", func(t *testing.T) {
		said := runPlanted(t, fastFlags)
		for _, f := range faults {
			f.check(t, said, f.fast)
		}
	})
}

func known(name string) bool {
	for _, f := range faults {
		if f.name == name {
			return true
		}
	}
	return false
}

func (f *fault) check(t *testing.T, said map[string][]report, finds bool) {
	want := regexp.MustCompile(f.want)
	if len(said[f.name]) != 2*len(seeds) {
		t.Errorf("%s: %d reports", f.name, len(said[f.name]))
	}
	for _, r := range said[f.name] {
		switch {
		case !r.bad && r.text != "":
			t.Errorf("%s, correct twin, seed %s: %s", f.name, r.seed, r.text)
		case r.bad && finds && !want.MatchString(r.text):
			t.Errorf("%s, seed %s: says %q, want %s", f.name, r.seed, r.text, f.want)
		}
	}
}

type report struct {
	bad        bool
	seed, text string
}

// runPlanted returns what the simulator says of each planted kernel.
func runPlanted(t *testing.T, flags []string) map[string][]report {
	t.Helper()
	program := link(t, "planted", flags, "planted_block.cc", "planted_global.cc", "planted_warp.cc", "planted_main.cc")
	out, err := exec.Command(program, seeds...).Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	said := map[string][]report{}
	for line := range strings.Lines(string(out)) {
		part := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(part) != 4 {
			t.Fatalf("cannot read %q", line)
		}
		said[part[0]] = append(said[part[0]], report{part[1] == "bad", part[2], part[3]})
	}
	return said
}

// runtimeObjects compiles the simulator, or finds it compiled.
var runtimeObjects = sync.OnceValues(func() (objects []string, err error) {
	b, err := open("")
	if err != nil {
		return nil, err
	}
	defer b.close()
	for _, name := range files(".cc") {
		if !strings.HasPrefix(name, "runtime/") {
			continue
		}
		object := b.path("driver", ".o", b.headers, read(name), strings.Join(driverFlags, " "))
		if err := b.compile(object, append(driverFlags[:len(driverFlags):len(driverFlags)], "-I", "include", "-c", name)...); err != nil {
			return nil, err
		}
		objects = append(objects, object)
	}
	return objects, nil
})

// link compiles kernel files of testdata and links them with the simulator.
func link(t *testing.T, name string, flags []string, sources ...string) string {
	t.Helper()
	needsCompiler(t)
	objects, err := runtimeObjects()
	if err != nil {
		t.Fatal(err)
	}
	for _, source := range sources {
		object := filepath.Join(t.TempDir(), source+".o")
		gxx(t, append(append(append([]string{}, kernelFlags...), flags...), "-I", "include", "-c", filepath.Join("testdata", source), "-o", object)...)
		objects = append(objects[:len(objects):len(objects)], object)
	}
	program := filepath.Join(t.TempDir(), name)
	gxx(t, append(objects, "-ldl", "-lpthread", "-o", program)...)
	return program
}

func needsCompiler(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("g++"); err != nil {
		t.Skip("NOT TESTED: needs g++")
	}
}

func gxx(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("g++", args...).CombinedOutput(); err != nil {
		t.Fatalf("g++ %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// must runs a program that prints nothing when all is well.
func must(t *testing.T, program string, args ...string) {
	t.Helper()
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("%s: %v\n%s", filepath.Base(program), err, out)
	}
}
