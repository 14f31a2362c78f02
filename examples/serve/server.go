package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"image"
	_ "image/jpeg"
	_ "image/png"
	"io"
	"log/slog"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	goruntime "runtime"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/data"
)

// limits bound what a client, or all of them together, can ask for.
type limits struct {
	body    int64         // bytes of a request
	pixels  int           // of a picture
	pending int           // requests at work at once
	wait    time.Duration // for a batch to fill
	timeout time.Duration // of a request
}

var defaultLimits = limits{body: 8 << 20, pixels: 1 << 24, pending: 256, wait: 4 * time.Millisecond, timeout: 10 * time.Second}

func (l *limits) define(fs *flag.FlagSet) {
	fs.Int64Var(&l.body, "max-body", l.body, "largest request, in `bytes`")
	fs.IntVar(&l.pixels, "max-pixels", l.pixels, "largest picture, in `pixels`")
	fs.IntVar(&l.pending, "max-pending", l.pending, "`requests` at work at once; more are refused")
	fs.DurationVar(&l.wait, "batch-wait", l.wait, "`time` that a picture waits for others")
	fs.DurationVar(&l.timeout, "timeout", l.timeout, "`time` for a request")
}

func (l *limits) check() error {
	if l.body < 1 || l.pixels < 1 || l.pending < 1 || l.wait < 0 || l.timeout <= 0 {
		return errors.New("limits must be positive")
	}
	return nil
}

// model is what the server asks.
type model struct {
	*runtime.Session
	prepare *data.Preparer
}

// server is the service as an HTTP handler.
type server struct {
	http.Handler
	model    model
	limits   limits
	log      *slog.Logger
	batcher  batcher
	slots    chan struct{} // one taken by each request at work
	decoders chan struct{} // one taken by each picture being decoded
	draining atomic.Bool
	started  time.Time
	counts   counts
}

// counts is what /metrics shows.
type counts struct {
	requests, accepted, answered, busy, refused, timeouts, failed atomic.Int64 // requests for predictions
	images, batches                                               atomic.Int64
}

func newServer(m model, l limits, log *slog.Logger) *server {
	s := &server{
		model: m, limits: l, log: log, started: time.Now(),
		slots:    make(chan struct{}, l.pending),
		decoders: make(chan struct{}, goruntime.GOMAXPROCS(0)),
	}
	s.batcher = batcher{predict: m.PredictTop, size: m.Model().Batch, wait: l.wait, done: func(images int) {
		s.counts.images.Add(int64(images))
		s.counts.batches.Add(1)
	}}
	s.batcher.start(l.pending)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /predict", s.predict)
	mux.HandleFunc("GET /healthz", s.health)
	mux.HandleFunc("GET /metrics", s.metrics)
	s.Handler = s.logged(mux)
	return s
}

// close ends the batcher. Requests that are still at work are told so.
func (s *server) close() { s.batcher.close() }

// failure is an answer that is not 200.
type failure struct {
	status int
	err    error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func fail(status int, format string, args ...any) error {
	return &failure{status, fmt.Errorf(format, args...)}
}

// predict is the handler of POST /predict?top=K: a picture as the body or as a
// part of a form.
func (s *server) predict(w http.ResponseWriter, r *http.Request) {
	s.counts.requests.Add(1)
	ctx, cancel := context.WithTimeout(r.Context(), s.limits.timeout)
	defer cancel()
	top, err := s.classify(ctx, w, r)
	if err == nil {
		s.counts.answered.Add(1)
		reply(w, http.StatusOK, struct {
			Predictions []class `json:"predictions"`
		}{top})
		return
	}
	var f *failure
	status := http.StatusInternalServerError
	switch {
	case errors.As(err, &f):
		status = f.status
		s.counts.refused.Add(1)
	case errors.Is(err, errBusy), errors.Is(err, errClosed):
		status = http.StatusServiceUnavailable
		s.counts.busy.Add(1)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		status, err = http.StatusServiceUnavailable, fmt.Errorf("not answered within %v", s.limits.timeout)
		s.counts.timeouts.Add(1)
	default:
		s.counts.failed.Add(1)
		s.log.Error("predict", "error", err.Error())
	}
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	reply(w, status, struct {
		Error string `json:"error"`
	}{err.Error()})
}

// class is a prediction as JSON.
type class struct {
	Class       int     `json:"class"`
	Name        string  `json:"name"`
	Probability float64 `json:"probability"`
}

func (s *server) classify(ctx context.Context, w http.ResponseWriter, r *http.Request) ([]class, error) {
	top := 1
	if v := r.URL.Query().Get("top"); v != "" {
		var err error
		if top, err = strconv.Atoi(v); err != nil || top < 1 {
			return nil, fail(http.StatusBadRequest, "top=%q is not a number from 1 on", v)
		}
	}
	// A slot is taken before the body is read, so that bodies in memory are
	// bounded too.
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		return nil, errBusy
	}
	s.counts.accepted.Add(1)
	body, err := picture(r, http.MaxBytesReader(w, r.Body, s.limits.body))
	if err != nil {
		return nil, err
	}
	input, err := s.decode(ctx, body)
	if err != nil {
		return nil, err
	}
	found, err := s.batcher.classify(ctx, input, top)
	if err != nil {
		return nil, err
	}
	out := make([]class, len(found))
	for i, p := range found {
		out[i] = class{p.Class, s.model.ClassName(p.Class), p.Probability}
	}
	return out, nil
}

// picture reads the picture file out of a request.
func picture(r *http.Request, body io.Reader) ([]byte, error) {
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case err == nil && (kind == "image/png" || kind == "image/jpeg"):
	case err == nil && kind == "multipart/form-data":
		form := multipart.NewReader(body, params["boundary"])
		for {
			part, err := form.NextPart()
			if err == io.EOF {
				return nil, fail(http.StatusBadRequest, "the form has no part called picture")
			}
			if err != nil {
				return nil, bodyError(err)
			}
			if part.FormName() == "picture" {
				body = part
				break
			}
		}
	default:
		return nil, fail(http.StatusUnsupportedMediaType, "Content-Type %q: send image/png, image/jpeg or multipart/form-data", r.Header.Get("Content-Type"))
	}
	file, err := io.ReadAll(body)
	if err != nil {
		return nil, bodyError(err)
	}
	return file, nil
}

// bodyError says what is wrong with a body that cannot be read.
func bodyError(err error) error {
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return fail(http.StatusRequestEntityTooLarge, "more than %d bytes", large.Limit)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fail(http.StatusRequestTimeout, "the request came too slowly")
	}
	return fail(http.StatusBadRequest, "reading the request: %w", err)
}

// decode makes the model's input of a picture file: as many at once as there
// are processors.
func (s *server) decode(ctx context.Context, file []byte) ([]float32, error) {
	select {
	case s.decoders <- struct{}{}:
		defer func() { <-s.decoders }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	// The header says how large the picture is. One that cannot be read is
	// left for Decode to explain.
	if c, _, err := image.DecodeConfig(bytes.NewReader(file)); err == nil && c.Height > 0 && c.Width > s.limits.pixels/c.Height {
		return nil, fail(http.StatusRequestEntityTooLarge, "%d×%d pixels; at most %d are read", c.Width, c.Height, s.limits.pixels)
	}
	input := make([]float32, s.model.Model().ImageElems())
	if err := s.model.prepare.Decode(bytes.NewReader(file), input); err != nil {
		return nil, fail(http.StatusBadRequest, "the picture cannot be read: %w", err)
	}
	return input, nil
}

// health is the handler of GET /healthz: 200, or 503 while draining, so that a
// balancer sends nothing more.
func (s *server) health(w http.ResponseWriter, _ *http.Request) {
	status, text := http.StatusOK, "ok"
	if s.draining.Load() {
		status, text = http.StatusServiceUnavailable, "draining"
	}
	reply(w, status, map[string]string{"status": text, "model": s.model.Model().Name})
}

// metrics is the handler of GET /metrics: counts since the start.
func (s *server) metrics(w http.ResponseWriter, _ *http.Request) {
	c := &s.counts
	reply(w, http.StatusOK, map[string]any{
		"uptime_s": time.Since(s.started).Seconds(),
		"pending":  len(s.slots),
		"requests": c.requests.Load(), "accepted": c.accepted.Load(), "answered": c.answered.Load(),
		"busy": c.busy.Load(), "refused": c.refused.Load(), "timeouts": c.timeouts.Load(), "failed": c.failed.Load(),
		"images": c.images.Load(), "batches": c.batches.Load(),
	})
}

// reply writes a JSON answer. That the client is gone is no concern of ours.
func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// logged writes a line for every request.
func (s *server) logged(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		seen := &recorder{ResponseWriter: w, status: http.StatusOK}
		h.ServeHTTP(seen, r)
		s.log.Info("request", "method", r.Method, "path", r.URL.Path, "status", seen.status,
			"ms", float64(time.Since(start).Microseconds())/1000, "remote", r.RemoteAddr)
	})
}

// recorder remembers the status.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}
