package cpu

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"
)

// TestLayout asks the C++ compiler where the fields of abi.h are.
func TestLayout(t *testing.T) {
	var (
		step    Step
		launch  VGLaunch
		barrier VGBarrier
		program VGProgram
		worker  VGWorker
	)
	var c, want strings.Builder
	expect := func(expr string, v uintptr) {
		fmt.Fprintf(&c, "printf(\"%s %%zu\\n\", (size_t)(%s));\n", expr, expr)
		fmt.Fprintf(&want, "%s %d\n", expr, v)
	}
	expect("sizeof(vg_step)", unsafe.Sizeof(step))
	expect("offsetof(vg_step, lr)", unsafe.Offsetof(step.LR))
	expect("offsetof(vg_step, inv_n)", unsafe.Offsetof(step.InvN))
	expect("offsetof(vg_step, bias_corr1)", unsafe.Offsetof(step.BiasCorr1))
	expect("offsetof(vg_step, bias_corr2)", unsafe.Offsetof(step.BiasCorr2))
	expect("offsetof(vg_step, seed_lo)", unsafe.Offsetof(step.SeedLo))
	expect("offsetof(vg_step, seed_hi)", unsafe.Offsetof(step.SeedHi))
	expect("offsetof(vg_step, micro_step)", unsafe.Offsetof(step.MicroStep))
	expect("offsetof(vg_step, dropout_on)", unsafe.Offsetof(step.DropoutOn))
	expect("offsetof(vg_step, ema_weight)", unsafe.Offsetof(step.EMAWeight))
	expect("sizeof(vg_launch)", unsafe.Sizeof(launch))
	expect("offsetof(vg_launch, kernel)", unsafe.Offsetof(launch.Kernel))
	expect("offsetof(vg_launch, arg_count)", unsafe.Offsetof(launch.ArgCount))
	expect("offsetof(vg_launch, first_arg)", unsafe.Offsetof(launch.FirstArg))
	expect("sizeof(vg_barrier)", unsafe.Sizeof(barrier))
	expect("offsetof(vg_barrier, arrived)", unsafe.Offsetof(barrier.Arrived))
	expect("offsetof(vg_barrier, phase)", unsafe.Offsetof(barrier.Phase))
	expect("sizeof(vg_program)", unsafe.Sizeof(program))
	expect("offsetof(vg_program, launches)", unsafe.Offsetof(program.Launches))
	expect("offsetof(vg_program, args)", unsafe.Offsetof(program.Args))
	expect("offsetof(vg_program, step)", unsafe.Offsetof(program.Step))
	expect("offsetof(vg_program, workspace)", unsafe.Offsetof(program.Workspace))
	expect("offsetof(vg_program, barrier)", unsafe.Offsetof(program.Barrier))
	expect("offsetof(vg_program, launch_ns)", unsafe.Offsetof(program.LaunchNS))
	expect("offsetof(vg_program, launch_count)", unsafe.Offsetof(program.LaunchCount))
	expect("offsetof(vg_program, batch)", unsafe.Offsetof(program.Batch))
	expect("sizeof(vg_worker)", unsafe.Sizeof(worker))
	expect("offsetof(vg_worker, index)", unsafe.Offsetof(worker.Index))
	expect("offsetof(vg_worker, count)", unsafe.Offsetof(worker.Count))
	expect("offsetof(vg_worker, scratch)", unsafe.Offsetof(worker.Scratch))
	expect("VG_SCRATCH_BYTES", ScratchBytes)

	cxx := os.Getenv("CXX")
	if cxx == "" {
		cxx = "g++"
	}
	dir := t.TempDir()
	src := filepath.Join(dir, "layout.cc")
	text := "#include <stdio.h>\n#include \"abi.h\"\nint main() {\n" + c.String() + "}\n"
	if err := os.WriteFile(src, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	include, err := filepath.Abs("../../codegen/kernels/common")
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "layout")
	if out, err := exec.Command(cxx, "-I", include, "-o", bin, src).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cxx, err, out)
	}
	got, err := exec.Command(bin).Output()
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want.String() {
		t.Errorf("C++ says\n%s\nGo says\n%s", got, want.String())
	}
}

func TestMemory(t *testing.T) {
	for _, n := range []int64{0, 1, 63, 4096, 4097, hugePage - 1, hugePage, 3*hugePage + 5, 70 << 20} {
		m, err := Alloc(n, 3)
		if err != nil {
			t.Fatal(err)
		}
		if got := int64(len(m.Bytes())); got != max(n, 1) {
			t.Errorf("Alloc(%d) has %d bytes", n, got)
		}
		align := uintptr(64)
		if n >= hugePage {
			align = hugePage
		}
		if m.Address()%align != 0 {
			t.Errorf("Alloc(%d) starts at %#x", n, m.Address())
		}
		for i, b := range m.Bytes() {
			if b != 0 {
				t.Fatalf("Alloc(%d): byte %d is %d", n, i, b)
			}
		}
		m.Free()
		m.Free()
	}
	for _, n := range []int64{-1, 1 << 60} {
		if _, err := Alloc(n, 1); err == nil {
			t.Errorf("Alloc(%d) succeeds", n)
		}
	}
}

// TestOverrun runs past the end of a block in a child process: it must die.
func TestOverrun(t *testing.T) {
	if os.Getenv("VITGEN_TEST_OVERRUN") != "" {
		m, err := Alloc(int64(pageSize), 1)
		if err != nil {
			os.Exit(0)
		}
		*(*byte)(unsafe.Add(unsafe.Pointer(&m.Bytes()[0]), pageSize)) = 1
		os.Exit(0)
	}
	child := exec.Command(os.Args[0], "-test.run=^TestOverrun$")
	child.Env = append(os.Environ(), "VITGEN_TEST_OVERRUN=1")
	if out, err := child.CombinedOutput(); err == nil {
		t.Errorf("writing past the block went unnoticed\n%s", out)
	}
}

// view is memory at an address outside the Go heap.
func view[T any](addr uintptr) *T { return *(**T)(unsafe.Pointer(&addr)) }

func TestTeam(t *testing.T) {
	for _, threads := range []int{1, 2, 7} {
		var calls, sum atomic.Int64
		seen := make([]atomic.Int32, threads)
		run := func(program, workerAt uintptr) {
			p, w := view[VGProgram](program), view[VGWorker](workerAt)
			calls.Add(1)
			seen[w.Index].Add(1)
			if int(w.Count) != threads || w.Scratch%64 != 0 || p.Workspace%64 != 0 || p.Barrier%64 != 0 {
				t.Errorf("worker %+v of program %+v", *w, *p)
			}
			// Everyone waits for everyone: workers must really run together.
			b := view[VGBarrier](p.Barrier)
			phase := atomic.LoadUint32(&b.Phase)
			if atomic.AddUint32(&b.Arrived, 1) == uint32(threads) {
				b.Arrived = 0
				atomic.AddUint32(&b.Phase, 1)
			}
			for deadline := time.Now().Add(10 * time.Second); atomic.LoadUint32(&b.Phase) == phase; time.Sleep(time.Microsecond) {
				if time.Now().After(deadline) {
					t.Error("the workers of a team do not run together")
					return
				}
			}
			if w.Index == 0 {
				launches := unsafe.Slice(view[VGLaunch](p.Launches), p.LaunchCount)
				args := unsafe.Slice(view[uintptr](p.Args), 3)
				for i, l := range launches {
					for _, a := range args[l.FirstArg:][:l.ArgCount] {
						sum.Add(int64(*view[byte](a)) * int64(l.Kernel))
					}
					if p.LaunchNS != 0 {
						unsafe.Slice(view[int64](p.LaunchNS), p.LaunchCount)[i] = int64(i + 1)
					}
				}
				sum.Add(int64(p.Batch) + int64(view[Step](p.Step).MicroStep))
			}
		}
		team, err := NewTeam(Entry{Go: run}, threads)
		if err != nil {
			t.Fatal(err)
		}
		work, err := Alloc(100, 1)
		if err != nil {
			t.Fatal(err)
		}
		copy(work.Bytes(), []byte{1, 2, 3})
		at := work.Address()
		p, err := NewProgram(team, []Launch{{10, []uintptr{at, at + 1}}, {100, nil}, {1000, []uintptr{at + 2}}}, work)
		if err != nil {
			t.Fatal(err)
		}
		step := Step{MicroStep: 500000}
		team.Run(p, 70000, &step)
		if want := int64(3*10 + 3*1000 + 70000 + 500000); sum.Load() != want {
			t.Errorf("%d threads: arguments sum to %d, want %d", threads, sum.Load(), want)
		}
		times := make([]time.Duration, 3)
		team.Profile(p, 1, &step, times)
		if times[0] != 1 || times[1] != 2 || times[2] != 3 {
			t.Errorf("%d threads: times are %v", threads, times)
		}
		for i := range seen {
			if seen[i].Load() != 2 {
				t.Errorf("worker %d of %d ran %d times, want 2", i, threads, seen[i].Load())
			}
		}
		if n := testing.AllocsPerRun(10, func() { team.Run(p, 1, &step) }); n > 0.5 {
			t.Errorf("%d threads: a run makes %g allocations", threads, n)
		}
		p.Free()
		work.Free()
		team.Close()
	}
	for _, n := range []int{0, -1, MaxThreads + 1} {
		if _, err := NewTeam(Entry{}, n); err == nil {
			t.Errorf("a team of %d is accepted", n)
		}
	}
}
