// Serve answers questions about pictures over HTTP, with the compiled model
// vit_tiny as a library: an example of a service around a generated package,
// to be copied and changed. For another model, change the import of compiled.
//
//	go run ./examples/serve --weights runs/vit_tiny/best.safetensors
//	curl --data-binary @digit.png -H 'Content-Type: image/png' 'localhost:8080/predict?top=3'
//	curl -F picture=@digit.png localhost:8080/predict
//
// Pictures that arrive within a few milliseconds are classified together, which
// costs little more than one of them alone. What is more than the service can
// do is refused at once (503 with Retry-After) instead of queued without end.
// An interrupt or SIGTERM ends it once every accepted picture is answered.
//
// It listens on loopback. Put a reverse proxy in front for TLS, users and rates.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	compiled "github.com/vitgen/vitgen/generated/vit_tiny"
	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/data"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal kills
	err := run(ctx, os.Args[1:], os.Stderr)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	default:
		fmt.Fprintln(os.Stderr, "serve:", err)
		os.Exit(1)
	}
}

// run serves until ctx is done and everything accepted is answered. The log
// goes to w.
func run(ctx context.Context, args []string, w io.Writer) error {
	fs := flag.NewFlagSet("serve", flag.ContinueOnError)
	fs.SetOutput(w)
	addr := fs.String("addr", "127.0.0.1:8080", "`address` to listen on")
	weights := fs.String("weights", "", "safetensors `file` that the model's trainer wrote")
	device := fs.String("device", "auto", "`device` to run on: auto, cpu or cuda:N")
	drain := fs.Duration("drain", 30*time.Second, "`time` that accepted pictures have at the end")
	limits := defaultLimits
	limits.define(fs)
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *weights == "" || fs.NArg() > 0 {
		return errors.New("usage: serve --weights FILE; -h lists the other flags")
	}
	if err := limits.check(); err != nil {
		return err
	}

	m, err := compiled.New(runtime.Options{Device: *device})
	if err != nil {
		return err
	}
	defer m.Close()
	if err := m.Load(*weights); err != nil {
		return err
	}
	d := m.Model().Data
	prepare, err := data.NewPreparer(data.Config{Name: d.Name, Image: m.Model().Image, Fit: d.Fit}, d.Mean, d.Std)
	if err != nil {
		return err
	}

	log := slog.New(slog.NewJSONHandler(w, nil))
	s := newServer(model{Session: m.Session, prepare: prepare}, limits, log)
	defer s.close() // before the model's Close
	l, err := net.Listen("tcp", *addr)
	if err != nil {
		return err
	}
	log.Info("listening", "addr", l.Addr().String(), "model", m.Model().Name, "weights", *weights, "device", m.Device())
	return serve(ctx, httpServer(s), l, s, *drain)
}

// httpServer gives up on clients that are slow: to send a request, to take its
// answer, or to ask again.
func httpServer(s *server) *http.Server {
	return &http.Server{
		Handler:           s,
		ReadHeaderTimeout: s.limits.timeout,
		ReadTimeout:       s.limits.timeout,
		WriteTimeout:      2 * s.limits.timeout, // from the end of the header on: the upload, then the answer
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    1 << 14,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
}

// serve runs h until ctx is done; then it accepts no more, and gives what it
// has accepted so much time.
func serve(ctx context.Context, h *http.Server, l net.Listener, s *server, drain time.Duration) error {
	failed := make(chan error, 1)
	go func() { failed <- h.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	s.draining.Store(true)
	s.log.Info("draining", "in_flight", len(s.slots))
	late, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	if err := h.Shutdown(late); err != nil {
		return errors.Join(fmt.Errorf("%d pictures were not answered within %v: %w", len(s.slots), drain, err), h.Close())
	}
	s.log.Info("stopped", "answered", s.counts.answered.Load())
	return nil
}
