package board

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"testing"
	"time"
)

// browser is a headless Chromium, driven over WebDriver: JSON over HTTP.
type browser struct {
	t       *testing.T
	session string // its URL
}

// openBrowser starts one. Where there is none it skips the test, aloud.
func openBrowser(t *testing.T) *browser {
	t.Helper()
	var chromium string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			chromium = path
			break
		}
	}
	driver, err := exec.LookPath("chromedriver")
	if chromium == "" || err != nil {
		t.Skip("no Chromium with chromedriver; get them with `apt-get install chromium chromium-driver`")
	}
	b := &browser{t: t, session: startDriver(t, driver) + "/session"}
	type object = map[string]any
	arguments := []string{
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--user-data-dir=" + t.TempDir(), "--window-size=1280,900",
	}
	var made struct{ SessionID string }
	b.call("POST", "", object{"capabilities": object{"alwaysMatch": object{
		"browserName":             "chrome",
		"goog:chromeOptions":      object{"binary": chromium, "args": arguments},
		"goog:loggingPrefs":       object{"browser": "ALL", "performance": "ALL"},
		"unhandledPromptBehavior": "dismiss",
	}}}, &made)
	b.session += "/" + made.SessionID
	t.Cleanup(func() { b.call("DELETE", "", nil, nil) })
	return b
}

// startDriver runs chromedriver at a free port until the test ends, and returns
// its URL.
func startDriver(t *testing.T, path string) string {
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, path, "--port=0")
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
	})
	said := regexp.MustCompile(`started successfully on port (\d+)`)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if port := said.FindStringSubmatch(lines.Text()); port != nil {
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return "http://127.0.0.1:" + port[1]
		}
	}
	t.Fatalf("chromedriver did not say its port: %v", lines.Err())
	return ""
}

// call is one WebDriver command.
func (b *browser) call(method, path string, body, value any) {
	b.t.Helper()
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			b.t.Fatal(err)
		}
	}
	r, err := http.NewRequest(method, b.session+path, bytes.NewReader(text))
	if err != nil {
		b.t.Fatal(err)
	}
	client := http.Client{Timeout: 20 * time.Second}
	resp, err := client.Do(r)
	if err != nil {
		b.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	var answer struct{ Value json.RawMessage }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		b.t.Fatalf("%s %s: %v", method, path, err)
	}
	if resp.StatusCode != http.StatusOK {
		b.t.Fatalf("%s %s: %s", method, path, answer.Value)
	}
	if value != nil {
		if err := json.Unmarshal(answer.Value, value); err != nil {
			b.t.Fatalf("%s %s: %s: %v", method, path, answer.Value, err)
		}
	}
}

func (b *browser) open(url string) {
	b.t.Helper()
	b.call("POST", "/url", map[string]string{"url": url}, nil)
}

// eval is the value of a JavaScript expression in the page.
func (b *browser) eval(expression string, value any) {
	b.t.Helper()
	b.call("POST", "/execute/sync", map[string]any{"script": "return " + expression, "args": []any{}}, value)
}

// text is what an element shows.
func (b *browser) text(selector string) (s string) {
	b.t.Helper()
	b.eval(fmt.Sprintf("document.querySelector(%q).innerText", selector), &s)
	return s
}

// label is the text of an SVG element.
func (b *browser) label(selector string) (s string) {
	b.t.Helper()
	b.eval(fmt.Sprintf("document.querySelector(%q).textContent", selector), &s)
	return s
}

// wait waits until a JavaScript expression is true.
func (b *browser) wait(expression string) {
	b.t.Helper()
	for until := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		var ok bool
		if b.eval("!!("+expression+")", &ok); ok {
			return
		}
		if time.Now().After(until) {
			var body string
			b.eval("document.body.innerText", &body)
			b.t.Fatalf("%s stays false; the page shows\n%s", expression, body)
		}
	}
}

// devtools is a command of Chromium's own protocol.
func (b *browser) devtools(command string, parameters any, value any) {
	b.t.Helper()
	b.call("POST", "/goog/cdp/execute", map[string]any{"cmd": command, "params": parameters}, value)
}

// view sets the window's width and height and the preferred colours.
func (b *browser) view(width, height int, scheme string) {
	b.t.Helper()
	type object = map[string]any
	b.devtools("Emulation.setDeviceMetricsOverride", object{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}, nil)
	b.devtools("Emulation.setEmulatedMedia", object{"features": []object{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
}

// screenshot is a PNG of the window. With the environment variable
// VITGEN_SCREENSHOTS it is also written into that directory.
func (b *browser) screenshot(name string) []byte {
	b.t.Helper()
	var text string
	b.call("GET", "/screenshot", nil, &text)
	picture, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		b.t.Fatal(err)
	}
	if dir := os.Getenv("VITGEN_SCREENSHOTS"); dir != "" {
		if err := os.WriteFile(dir+"/"+name+".png", picture, 0o644); err != nil {
			b.t.Fatal(err)
		}
	}
	return picture
}

// logged are the messages of one of the browser's logs since the last call.
func (b *browser) logged(kind string) (messages []string) {
	b.t.Helper()
	var entries []struct{ Message string }
	b.call("POST", "/se/log", map[string]string{"type": kind}, &entries)
	for _, e := range entries {
		messages = append(messages, e.Message)
	}
	return messages
}
