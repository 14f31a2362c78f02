package board

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"time"
)

//go:embed page/page.html
var pageHTML []byte

//go:embed page/page.css
var pageCSS []byte

//go:embed page/chart.js
var chartJS []byte

//go:embed page/page.js
var pageJS []byte

//go:embed page/icon.svg
var icon []byte

// assemble puts style and script into the page, and says what the page may do:
// run these, talk to where it came from, and show pictures that it was sent.
func assemble() (page []byte, policy string) {
	script := bytes.Join([][]byte{chartJS, pageJS}, []byte("\n"))
	page = bytes.Replace(pageHTML, []byte("<style></style>"), wrap("style", pageCSS), 1)
	page = bytes.Replace(page, []byte("<script></script>"), wrap("script", script), 1)
	return page, fmt.Sprintf("default-src 'none'; style-src '%s'; script-src '%s'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
		sourceHash(pageCSS), sourceHash(script))
}

func wrap(tag string, text []byte) []byte {
	return fmt.Appendf(nil, "<%s>%s</%[1]s>", tag, text)
}

// sourceHash names an inline script or style in a content security policy.
func sourceHash(text []byte) string {
	sum := sha256.Sum256(text)
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// newServer is the board's server, with limits for whoever connects.
func (b *Board) newServer() *http.Server {
	page, policy := assemble()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", fixed("text/html; charset=utf-8", page))
	mux.HandleFunc("GET /icon.svg", fixed("image/svg+xml", icon))
	mux.HandleFunc("GET /api/events", b.follow)
	mux.HandleFunc("GET /api/run", b.api(b.state))
	mux.HandleFunc("GET /api/records", b.api(b.all))
	return &http.Server{
		Handler:           guard(mux, policy),
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          log.New(io.Discard, "", 0), // the terminal is the run's
	}
}

// guard is what holds for every request.
func guard(next http.Handler, policy string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if !localHost(r.Host) {
			http.Error(w, "this page is for this machine: open it as http://127.0.0.1 or http://localhost", http.StatusForbidden)
			return
		}
		// Whoever does not take the answer is not waited for.
		if http.NewResponseController(w).SetWriteDeadline(time.Now().Add(patience)) == nil {
			next.ServeHTTP(w, r)
		}
	})
}

// fixed serves bytes.
func fixed(kind string, body []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		_, _ = w.Write(body)
	}
}

// api serves what a function returns as JSON.
func (b *Board) api(of func() any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(append(encodeAny(of()), '\n'))
	}
}

// state is the run and where it is.
func (b *Board) state() any {
	b.mu.Lock()
	defer b.mu.Unlock()
	return struct {
		Run      Run       `json:"run"`
		Progress *progress `json:"progress"`
		End      *ending   `json:"end"`
	}{b.run, b.progress, b.end}
}

// all is every record that is kept.
func (b *Board) all() any {
	b.mu.Lock()
	defer b.mu.Unlock()
	records, _, _ := b.records.since(place{})
	return struct {
		Records []json.RawMessage `json:"records"`
	}{records}
}
