package trainer

import (
	"bytes"
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/vitgen/vitgen/runtime"
)

// TestProgressBar: a terminal shows epoch, count, loss, rate and how long the
// run will take, and nothing is left of it in the end.
func TestProgressBar(t *testing.T) {
	var screen bytes.Buffer
	tr := &training{stepper: stepper{app: &app{}, total: 100, updates: 10}}
	tr.plan.PerEpoch, tr.plan.Every = 50, 25
	tr.progress = progress{w: &screen, terminal: true}
	tr.progress.start("epoch 1/2", 50)
	tr.begun, tr.begunAt = time.Now().Add(-2*time.Minute), 0
	tr.mark = time.Now().Add(-time.Second)
	tr.interval = meter{samples: 15200}
	for range 2 {
		time.Sleep(110 * time.Millisecond) // the bar is drawn ten times a second
		tr.showUpdate(0.5, false)
	}
	drawn := screen.String()
	if !regexp.MustCompile(`epoch 1/2  loss 0\.5000  1\d,\d{3} samples/s  18m0\ds left .*\(1/50\)`).MatchString(drawn) {
		t.Errorf("the bar is %q", drawn)
	}
	tr.progress.clear()
	if left := screen.String()[len(drawn):]; !strings.HasSuffix(left, "\r") || strings.Trim(left, " \r\x1b[2K") != "" {
		t.Errorf("cleared with %q", left)
	}
}

// TestProgressLines: elsewhere there is a line at the end of an interval, unless
// there was one lately, and one a minute in a long interval.
func TestProgressLines(t *testing.T) {
	var log bytes.Buffer
	tr := &training{stepper: stepper{app: &app{out: &log}, total: 100, updates: 10}}
	tr.plan.PerEpoch, tr.plan.Every = 50, 5
	tr.begun = time.Now()
	for _, c := range []struct {
		ago  time.Duration
		ends bool
		want bool
	}{{9 * time.Second, true, false}, {11 * time.Second, true, true}, {11 * time.Second, false, false}, {61 * time.Second, false, true}} {
		log.Reset()
		tr.progress = progress{lastLine: time.Now().Add(-c.ago)}
		tr.showUpdate(0.5, c.ends)
		if got := strings.HasPrefix(log.String(), "update 10/100  train loss 0.5000  0 samples/s  "); got != c.want || strings.Count(log.String(), "\n") > 1 {
			t.Errorf("%v after the last line, at the end of an interval %t: %q", c.ago, c.ends, log.String())
		}
	}
	// A whole run that is over before there is anything to say between epochs.
	status, out, stderr := run(t, context.Background(), digits(32, runtime.Train{Epochs: 2}), "train", "--out", t.TempDir(), "--every", "1", "--save-every", "1")
	if status != 0 || strings.Contains(out, "update 1/") || stderr != "" || strings.Count(out, "\n") > 8 {
		t.Errorf("exit %d\n%s%s", status, out, stderr)
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 1499 * time.Millisecond: "1s", 59 * time.Second: "59s", 60 * time.Second: "1m00s",
		3599 * time.Second: "59m59s", 3661 * time.Second: "1h01m", 26*time.Hour + 59*time.Minute: "1d02h",
	} {
		if got := duration(d); got != want {
			t.Errorf("%v is written %s, want %s", d, got, want)
		}
	}
}
