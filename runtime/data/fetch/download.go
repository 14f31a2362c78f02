package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/vitgen/vitgen/runtime/data"
)

// localError is a failure of this machine, which no other server can help.
type localError struct{ error }

func (e localError) Unwrap() error { return e.error }

// finalError is a failure that trying again at the same server cannot help.
type finalError struct{ error }

func (e finalError) Unwrap() error { return e.error }

func final(format string, args ...any) error { return finalError{fmt.Errorf(format, args...)} }

var errStalled = errors.New("stalled")

// download fills the part with the whole file, checked, from the first mirror
// that gives it.
func (f *fetcher) download(ctx context.Context, file data.KnownFile, p *part) error {
	var failures []string
	for i, m := range f.mirrors {
		from, err := url.JoinPath(m, path.Base(file.Name))
		if err == nil {
			err = f.fromMirror(ctx, from, file, p)
		}
		if err == nil {
			return nil
		}
		if local, ok := errors.AsType[localError](err); ok {
			return f.localFailure(local, file, p)
		}
		if ctx.Err() != nil {
			have, _ := p.size()
			return fmt.Errorf("%s: %w after %s of %s; the next fetch goes on from there", p.Name(), context.Cause(ctx), bytesText(have), bytesText(file.Size))
		}
		failures = append(failures, fmt.Sprintf("%s: %v", from, err))
		if i+1 < len(f.mirrors) {
			f.progress.Note(failures[i] + "; trying the next mirror")
		}
	}
	return fmt.Errorf("%s could not be fetched\n  %s\nif there is a copy elsewhere, name the URL of its folder with --mirror, or put the file there yourself",
		f.path(file.Name), strings.Join(failures, "\n  "))
}

func (f *fetcher) localFailure(err localError, file data.KnownFile, p *part) error {
	if !errors.Is(err, syscall.ENOSPC) {
		return err.error
	}
	have, _ := p.size()
	return fmt.Errorf("%w: %s more are needed; what has arrived stays, and the next fetch goes on from there", err.error, bytesText(file.Size-have))
}

// resets is how many bytes further than ever the transfer must come for earlier
// failures to be forgotten: a server that breaks off again and again at the
// same place is given up.
const resets = 64 << 10

// fromMirror fills the part from one server, in several attempts if need be.
func (f *fetcher) fromMirror(ctx context.Context, from string, file data.KnownFile, p *part) error {
	furthest, err := p.size()
	if err != nil {
		return err
	}
	var last error
	for failed := 0; failed < f.timing.attempts; failed++ {
		if failed > 0 {
			if err := sleep(ctx, f.timing.wait<<(failed-1)); err != nil {
				return err
			}
		}
		have, err := p.size()
		if err != nil {
			return err
		}
		last = f.attempt(ctx, from, file, p, have)
		if last == nil {
			last = f.verify(file, p, have)
		}
		if last == nil {
			return nil
		}
		_, isFinal := errors.AsType[finalError](last)
		_, isLocal := errors.AsType[localError](last)
		if isFinal || isLocal || ctx.Err() != nil {
			return last
		}
		if have, err = p.size(); err == nil && have >= furthest+resets {
			furthest, failed = have, 0
		}
	}
	return last
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// verify checks the whole part. Wrong bytes are thrown away; if some of them
// were there before, they may be to blame, and another attempt is worth it.
func (f *fetcher) verify(file data.KnownFile, p *part, before int64) error {
	sum, err := hashFile(p.Name())
	if err != nil {
		return localError{err}
	}
	if sum == file.SHA256 {
		return nil
	}
	if err := p.empty(); err != nil {
		return err
	}
	err = fmt.Errorf("wrong checksum: SHA-256 is %s, not %s", sum, file.SHA256)
	if before > 0 {
		return err
	}
	return finalError{err}
}

// attempt asks for what is missing of the file and appends it to the part.
func (f *fetcher) attempt(ctx context.Context, from string, file data.KnownFile, p *part, have int64) error {
	if have > file.Size {
		if err := p.empty(); err != nil {
			return err
		}
		have = 0
	}
	if have == file.Size {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(f.timing.stall, func() { cancel(errStalled) })
	defer watch.Stop()

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return finalError{err}
	}
	req.Header.Set("User-Agent", "vitgen")
	if have > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", have))
	}
	resp, err := f.client.Do(req)
	if err != nil {
		return f.networkError(ctx, err)
	}
	defer resp.Body.Close()
	if have, err = begins(resp, file, p, have); err != nil {
		return err
	}
	f.progress.Begin(path.Base(file.Name), have, file.Size)
	return f.receive(ctx, resp.Body, file, p, have, watch)
}

// begins reads what a response announces, and gives the place in the file that
// its bytes begin at.
func begins(resp *http.Response, file data.KnownFile, p *part, have int64) (int64, error) {
	total := int64(-1)
	switch code := resp.StatusCode; {
	case code == http.StatusPartialContent:
		var first, last int64
		text := resp.Header.Get("Content-Range")
		if n, _ := fmt.Sscanf(text, "bytes %d-%d/", &first, &last); n < 2 || first != have {
			return 0, final("the server answers bytes %d- with %q", have, text)
		}
		if _, size, ok := strings.Cut(text, "/"); ok && size != "*" {
			if _, err := fmt.Sscan(size, &total); err != nil {
				return 0, final("the server answers bytes %d- with %q", have, text)
			}
		}
	case code == http.StatusOK: // perhaps because it knows no ranges
		total = resp.ContentLength
		if have > 0 {
			if err := p.empty(); err != nil {
				return 0, err
			}
			have = 0
		}
	case code == http.StatusRequestedRangeNotSatisfiable:
		if err := p.empty(); err != nil {
			return 0, err
		}
		return 0, errors.New(resp.Status)
	case code >= 500 || code == http.StatusTooManyRequests || code == http.StatusRequestTimeout:
		return 0, errors.New(resp.Status)
	default:
		return 0, final("%s", resp.Status)
	}
	if total >= 0 && total != file.Size {
		return 0, final("the server has %d bytes, the file is of %d", total, file.Size)
	}
	return have, nil
}

// receive appends the body to the part, which must then be complete.
func (f *fetcher) receive(ctx context.Context, body io.Reader, file data.KnownFile, p *part, have int64, watch *time.Timer) error {
	buffer := make([]byte, 64<<10)
	for {
		n, err := body.Read(buffer)
		watch.Reset(f.timing.stall)
		if have+int64(n) > file.Size {
			if err := p.empty(); err != nil {
				return err
			}
			return final("the server sends more than the %d bytes of the file", file.Size)
		}
		if n > 0 {
			if _, err := p.WriteAt(buffer[:n], have); err != nil {
				return localError{err}
			}
			have += int64(n)
			f.progress.Add(n)
		}
		switch {
		case err == io.EOF && have == file.Size:
			if err := p.Sync(); err != nil {
				return localError{err}
			}
			return nil
		case err == io.EOF:
			return fmt.Errorf("the connection ended after %d of %d bytes", have, file.Size)
		case err != nil:
			return f.networkError(ctx, fmt.Errorf("after %d of %d bytes: %w", have, file.Size, err))
		}
	}
}

func (f *fetcher) networkError(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errStalled) {
		return fmt.Errorf("the server has sent nothing for %v", f.timing.stall)
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
		return finalError{dns} // no network, most likely: the user should not wait for that
	}
	// The URL stands before the message already.
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}
