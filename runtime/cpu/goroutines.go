package cpu

import "sync"

// goroutines are workers whose kernels are written in Go, as those of tests:
// worker 0 is the caller of run, the others sleep between runs.
type goroutines struct {
	entry  func(program, worker uintptr)
	worker func(i int) uintptr
	wake   []chan uintptr // of workers 1 …
	done   sync.WaitGroup
}

func startGoroutines(entry func(program, worker uintptr), worker func(i int) uintptr, count int) crew {
	g := &goroutines{entry: entry, worker: worker}
	for i := 1; i < count; i++ {
		wake := make(chan uintptr, 1)
		g.wake = append(g.wake, wake)
		go func() {
			for p := range wake {
				g.entry(p, worker(i))
				g.done.Done()
			}
		}()
	}
	return g
}

func (g *goroutines) run(program uintptr) {
	g.done.Add(len(g.wake))
	for _, wake := range g.wake {
		wake <- program
	}
	g.entry(program, g.worker(0))
	g.done.Wait()
}

func (g *goroutines) stop() {
	for _, wake := range g.wake {
		close(wake)
	}
}
