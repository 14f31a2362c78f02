package board

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// pace is the least time between two messages to a client.
	pace = 200 * time.Millisecond
	// heartbeat is how often a silent stream shows that it lives.
	heartbeat = 15 * time.Second
	// patience is how long a client may take to read a message.
	patience = 10 * time.Second
	// maxClients is the most pages that may follow a run at a time.
	maxClients = 32
)

// client is a page that follows the run, and what it was sent.
type client struct {
	wake        chan struct{} // has an element if there may be something new
	described   int
	place       place
	progressed  int
	predictions *gallery
}

// wake tells clients that there is something new. The board is locked.
func (b *Board) wake() {
	for c := range b.clients {
		select {
		case c.wake <- struct{}{}:
		default: // it will look in any case
		}
	}
}

// follow is the event stream of a client.
//
//	run          Run, first of all
//	records      {whole, records}; whole: in place of those before
//	progress     progress, the newest
//	predictions  Predictions, the newest
//	end          ending; the stream ends with it
//
// An event with records has an id, the client's place. A browser that comes back
// sends the last one it got, and goes on there.
func (b *Board) follow(w http.ResponseWriter, r *http.Request) {
	c := &client{wake: make(chan struct{}, 1), place: b.placeOf(r.Header.Get("Last-Event-ID"))}
	if !b.enter(c) {
		http.Error(w, fmt.Sprintf("%d pages follow this run already; close some", maxClients), http.StatusServiceUnavailable)
		return
	}
	defer b.leave(c)
	w.Header().Set("Content-Type", "text/event-stream")
	if r.Method == http.MethodHead {
		return
	}
	var message bytes.Buffer
	message.WriteString("retry: 2000\n\n")
	for {
		over := b.news(c, &message)
		if err := send(w, &message); err != nil || over {
			return
		}
		if !rest(r.Context().Done(), time.After(pace)) {
			return
		}
		select {
		case <-c.wake:
		case <-time.After(heartbeat):
			message.WriteString(": still here\n\n")
		case <-r.Context().Done():
			return
		}
	}
}

// rest waits for a time and reports whether nothing ended before.
func rest(done <-chan struct{}, over <-chan time.Time) bool {
	select {
	case <-done:
		return false
	case <-over:
		return true
	}
}

// news writes what a client lacks, and reports whether that was the last.
func (b *Board) news(c *client, message *bytes.Buffer) (over bool) {
	b.mu.Lock()
	run, described := b.run, b.described
	records, whole, now := b.records.since(c.place)
	at, progressed, predictions, end := b.progress, b.progressed, b.predictions, b.end
	b.mu.Unlock()

	if described != c.described {
		event(message, "run", "", encodeAny(run))
		c.described = described
	}
	if whole || len(records) > 0 {
		event(message, "records", b.idOf(now), encodeAny(struct {
			Whole   bool              `json:"whole"`
			Records []json.RawMessage `json:"records"`
		}{whole, records}))
		c.place = now
	}
	if predictions != c.predictions {
		event(message, "predictions", "", predictions.json())
		c.predictions = predictions
	}
	if progressed != c.progressed {
		event(message, "progress", "", encodeAny(at))
		c.progressed = progressed
	}
	if end != nil {
		event(message, "end", "", encodeAny(end))
	}
	return end != nil
}

// event writes one event; its data has no line ends.
func event(message *bytes.Buffer, name, id string, data json.RawMessage) {
	if id != "" {
		fmt.Fprintf(message, "id: %s\n", id)
	}
	fmt.Fprintf(message, "event: %s\ndata: %s\n\n", name, data)
}

// send writes a message out and empties it.
func send(w http.ResponseWriter, message *bytes.Buffer) error {
	control := http.NewResponseController(w)
	if err := control.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	defer func() { *message = bytes.Buffer{} }() // a large one is not kept for a client that waits
	if _, err := w.Write(message.Bytes()); err != nil {
		return err
	}
	return control.Flush()
}

// encodeAny is JSON of what always can be that.
func encodeAny(v any) json.RawMessage {
	text, err := json.Marshal(v)
	if err != nil {
		panic("BUG: no JSON: " + err.Error())
	}
	return text
}

func (b *Board) enter(c *client) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.clients) == maxClients {
		return false
	}
	b.clients[c] = struct{}{}
	return true
}

func (b *Board) leave(c *client) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.clients, c)
	select {
	case b.left <- struct{}{}:
	default:
	}
}

// idOf is the event id of a place: the run, the generation, the record.
func (b *Board) idOf(p place) string {
	return fmt.Sprintf("%s-%d-%d", b.token, p.generation, p.last)
}

// placeOf is the place of an event id; before everything if that is not of this
// run.
func (b *Board) placeOf(id string) place {
	parts := strings.Split(id, "-")
	if len(parts) != 3 || parts[0] != b.token {
		return place{}
	}
	generation, err1 := strconv.Atoi(parts[1])
	last, err2 := strconv.Atoi(parts[2])
	if err1 != nil || err2 != nil {
		return place{}
	}
	return place{generation, last}
}
