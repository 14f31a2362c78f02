package fetch

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/vitgen/vitgen/runtime/data"
)

// overhead bounds what an archive may hold besides the files that are wanted.
const overhead = 16 << 20

// unpack takes the wanted files out of a tar.gz. Nothing else in it is looked
// at, so that no name in an archive says where anything is written; and no more
// is decompressed than the files need. All are taken out before any is put in
// its place.
func (f *fetcher) unpack(ctx context.Context, archive string, wanted []data.KnownFile) (err error) {
	in, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer in.Close()
	var taken []string
	defer func() {
		if err != nil {
			for _, name := range taken {
				os.Remove(f.path(name) + ".part")
			}
		}
	}()
	if err := f.take(ctx, in, wanted, &taken); err != nil {
		return fmt.Errorf("%s: %w", archive, err)
	}
	for _, k := range wanted {
		name := f.path(k.Name)
		if there, err := f.look([]data.KnownFile{k}); err != nil {
			return err
		} else if there == good {
			if err := os.Remove(name + ".part"); err != nil {
				return err
			}
			continue
		}
		if err := replace(name+".part", name); err != nil {
			return err
		}
	}
	return nil
}

// take writes the wanted files of an archive to NAME.part and lists them.
func (f *fetcher) take(ctx context.Context, in io.Reader, wanted []data.KnownFile, taken *[]string) error {
	limit := int64(overhead)
	for _, k := range wanted {
		limit += k.Size
	}
	z, err := gzip.NewReader(in)
	if err != nil {
		return err
	}
	files := tar.NewReader(&boundedReader{z, limit})
	for {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		i := slices.IndexFunc(wanted, func(k data.KnownFile) bool { return k.Name == path.Clean(h.Name) })
		switch {
		case i < 0:
			continue
		case slices.Contains(*taken, wanted[i].Name):
			return fmt.Errorf("%s is in it twice", h.Name)
		case h.Typeflag != tar.TypeReg:
			return fmt.Errorf("%s is no file in it", h.Name)
		case h.Size != wanted[i].Size:
			return fmt.Errorf("%s has %d bytes in it, not %d", h.Name, h.Size, wanted[i].Size)
		}
		*taken = append(*taken, wanted[i].Name)
		if err := writeFile(f.path(wanted[i].Name)+".part", &cancelReader{ctx, files}); err != nil {
			return err
		}
	}
	for _, k := range wanted {
		if !slices.Contains(*taken, k.Name) {
			return fmt.Errorf("%s is not in it", k.Name)
		}
	}
	return nil
}

func writeFile(name string, from io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		return err
	}
	out, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, from)
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

// boundedReader fails when more is read than expected.
type boundedReader struct {
	r    io.Reader
	left int64
}

func (b *boundedReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, errors.New("it holds far more than the files that are wanted")
	}
	return n, err
}

// cancelReader fails when its context has ended.
type cancelReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *cancelReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}
