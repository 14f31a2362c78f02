// Package board is the live page of a training run: its curves, throughput,
// progress and recent predictions, served on loopback by the trainer itself.
//
// The page is one HTML file without outside assets. It follows the run over
// Server-Sent Events. A client has no queue here: it has a place in what the
// board holds, and is sent what came after that place as fast as it reads. So a
// slow client costs no memory and never holds up training, a late one is sent
// everything, and one that lost its connection goes on where it was.
package board

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Run is what does not change while a run lasts: what is trained, with what.
type Run struct {
	Model      string `json:"model"`
	Parameters int    `json:"parameters"`
	SpecFile   string `json:"spec_file"`
	Spec       string `json:"spec"` // canonical YAML
	SpecHash   string `json:"spec_hash"`
	Generator  string `json:"generator"` // version of vitgen
	Device     string `json:"device"`
	Precision  string `json:"precision"`
	Data       string `json:"data"`
	Train      int    `json:"train"` // samples
	Val        int    `json:"val"`
	Image      [3]int `json:"image"`       // channels, height, width
	Seed       uint64 `json:"seed,string"` // JavaScript's numbers end at 2⁵³
	Batch      string `json:"batch"`       // "128", "128 × 4"
	Optimizer  string `json:"optimizer"`
	Schedule   string `json:"schedule"`
	Epochs     int    `json:"epochs"`
	Updates    int    `json:"updates"` // of the whole run
	Dir        string `json:"dir"`
}

// Progress is where a run is.
type Progress struct {
	Phase         string  // "training" or "validating"
	Step          int     // updates made
	Epoch         float64 // epochs made
	TrainLoss     float64 // mean of the interval so far
	LR            float64
	SamplesPerSec float64
}

// How a run ended, for Finish.
const (
	Finished    = "finished"
	Interrupted = "interrupted"
	Failed      = "failed"
)

// Board serves one run. Its methods may be called from several goroutines; they
// take microseconds and never wait for a client. Those of a nil Board do
// nothing, so that a run without one needs no conditions.
type Board struct {
	token  string // of this run, in event ids: those of another run mean nothing
	server *http.Server
	url    string
	began  time.Time
	served chan struct{} // closed when the server has stopped
	left   chan struct{} // has an element after a client left

	mu          sync.Mutex
	run         Run
	described   int // counts changes of run
	clients     map[*client]struct{}
	records     history
	progress    *progress // nil before the first
	progressed  int       // counts changes of progress
	predictions *gallery  // nil before the first
	end         *ending   // nil while the run lasts
}

// progress is Progress as clients get it.
type progress struct {
	Phase         string  `json:"phase"`
	Step          int     `json:"step"`
	Epoch         number  `json:"epoch"`
	TrainLoss     number  `json:"train_loss"`
	LR            number  `json:"lr"`
	SamplesPerSec number  `json:"samples_per_sec"`
	Elapsed       float64 `json:"elapsed"`       // seconds since the board's start
	ETA           *number `json:"eta,omitempty"` // seconds to the last update, if that can be told

	first int // the step at the board's start
}

// ending is how a run ended.
type ending struct {
	Status string `json:"status"`
	Text   string `json:"text"`
}

// number is a float64 that JSON can always hold: null if it is not finite.
type number float64

func (n number) MarshalJSON() ([]byte, error) {
	if v := float64(n); v-v == 0 {
		return strconv.AppendFloat(nil, v, 'g', -1, 64), nil
	}
	return []byte("null"), nil
}

// Start serves a run's page at an address of this machine: ":8080",
// "127.0.0.1:8080", "[::1]:8080" or "localhost:8080"; port 0 is any free one.
// An address that other machines could reach is refused. Close ends it.
func Start(addr string, run Run) (*Board, error) {
	host, err := Address(addr)
	if err != nil {
		return nil, fmt.Errorf("board: %w", err)
	}
	l, err := net.Listen("tcp", host)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("board: %s is in use, perhaps by another run's board: give another port, or :0 for any free one", host)
	case err != nil:
		return nil, fmt.Errorf("board: %w", err)
	}
	b := &Board{
		run: run, described: 1, token: strconv.FormatInt(time.Now().UnixNano(), 36),
		url: "http://" + l.Addr().String() + "/", began: time.Now(),
		served: make(chan struct{}), left: make(chan struct{}, 1), clients: map[*client]struct{}{}, records: newHistory(),
	}
	b.server = b.newServer()
	go func() {
		defer close(b.served)
		_ = b.server.Serve(l) // ends with Close; a page is no reason to stop training before
	}()
	return b, nil
}

// Address checks an address for Start and fills in its host.
func Address(addr string) (string, error) {
	if _, err := strconv.ParseUint(addr, 10, 16); err == nil {
		addr = ":" + addr
	}
	host, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return "", fmt.Errorf("%q is no address: give a port, as in :8080, or :0 for any free one", addr)
	}
	if host == "" || host == "localhost" {
		host = "127.0.0.1"
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return "", fmt.Errorf("%s is not an address of this machine alone, and the page has no password: give :%s, and from elsewhere forward the port (ssh -L %[2]s:127.0.0.1:%[2]s HOST)", host, port)
	}
	return net.JoinHostPort(host, port), nil
}

// URL is where the page is.
func (b *Board) URL() string {
	if b == nil {
		return ""
	}
	return b.url
}

// Describe replaces what Start was told of the run: an address is best taken
// before anything else is done, and not all is known then.
func (b *Board) Describe(run Run) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.run = run
	b.described++
	b.wake()
}

// Progress says where the run is. It may be called at every update: clients are
// told a few times a second.
func (b *Board) Progress(p Progress) {
	if b == nil {
		return
	}
	now := progress{
		Phase: p.Phase, Step: p.Step, Epoch: number(p.Epoch), TrainLoss: number(p.TrainLoss),
		LR: number(p.LR), SamplesPerSec: number(p.SamplesPerSec), first: p.Step,
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now.Elapsed = time.Since(b.began).Seconds()
	if b.progress != nil {
		now.first = b.progress.first
	}
	if made := now.Step - now.first; made > 0 && b.run.Updates >= now.Step {
		eta := number(now.Elapsed / float64(made) * float64(b.run.Updates-now.Step))
		now.ETA = &eta
	}
	b.progress = &now
	b.progressed++
	b.wake()
}

// Finish says how the run ended: a status (Finished, Interrupted, Failed) and a
// line for people. The page shows it, and is told nothing more.
func (b *Board) Finish(status, text string) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.end == nil {
		b.end = &ending{status, text}
		b.wake()
	}
}

// lastWords is how long Close waits for clients to take the end of the run.
const lastWords = 2 * time.Second

// Close ends the page: clients are sent what they have not seen yet and how the
// run ended, as long as they take it within two seconds. What a browser shows
// stays there. A run without Finish has failed.
func (b *Board) Close() error {
	if b == nil {
		return nil
	}
	b.Finish(Failed, "the run ended early")
	for timeout := time.After(lastWords); b.watched() > 0; {
		select {
		case <-b.left:
			continue
		case <-timeout:
		}
		break
	}
	// Browsers keep connections that never asked for anything, and Shutdown
	// would wait for those too.
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	err := b.server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = b.server.Close()
	}
	<-b.served
	return err
}

// watched is the number of event streams.
func (b *Board) watched() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.clients)
}

// localHost reports whether a request's Host header names this machine: a name
// that somebody else's DNS points here is refused, or their pages could read
// this one.
func localHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}
