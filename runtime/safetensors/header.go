package safetensors

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"unicode/utf8"
)

// metadataKey is the header key that holds strings instead of a tensor.
const metadataKey = "__metadata__"

// maxRank bounds a shape's length; far above any real tensor's.
const maxRank = 64

// headerReader walks the header's JSON token by token: encoding/json's own
// decoding drops duplicate keys and ignores unknown ones.
type headerReader struct {
	dec *json.Decoder
}

func parseHeader(text []byte) (map[string]string, []entry, error) {
	if len(text) == 0 || text[0] != '{' {
		return nil, nil, &Error{Reason: "the header is not a JSON object: not a safetensors file?"}
	}
	if !utf8.Valid(text) {
		return nil, nil, &Error{Reason: "the header is not UTF-8"}
	}
	r := headerReader{json.NewDecoder(bytes.NewReader(text))}
	r.dec.UseNumber()
	var metadata map[string]string
	var entries []entry
	err := r.object(func(key string) error {
		var err error
		if key == metadataKey {
			metadata, err = r.strings()
			return err
		}
		e := entry{name: key}
		if err := r.tensor(&e); err != nil {
			return &Error{Tensor: key, Reason: err.Error()}
		}
		entries = append(entries, e)
		return nil
	})
	if err == nil {
		if _, end := r.dec.Token(); end != io.EOF {
			err = fmt.Errorf("more text follows the JSON object")
		}
	}
	if err == nil {
		return metadata, entries, nil
	}
	if _, ok := err.(*Error); !ok {
		err = &Error{Reason: "header: " + err.Error()}
	}
	return nil, nil, err
}

// object reads {key: value, …}; value reads what follows a key.
func (r headerReader) object(value func(key string) error) error {
	if err := r.delim('{'); err != nil {
		return err
	}
	seen := map[string]bool{}
	for r.dec.More() {
		key, err := r.str()
		if err != nil {
			return err
		}
		if seen[key] {
			return fmt.Errorf("duplicate key %q", key)
		}
		seen[key] = true
		if err := value(key); err != nil {
			return err
		}
	}
	return r.delim('}')
}

func (r headerReader) tensor(e *entry) error {
	var missing = []string{"dtype", "shape", "data_offsets"}
	err := r.object(func(key string) error {
		at := slices.Index(missing, key)
		if at < 0 {
			return fmt.Errorf("unknown key %q", key)
		}
		missing = slices.Delete(missing, at, at+1)
		switch key {
		case "dtype":
			s, err := r.str()
			if e.dtype = DType(s); err == nil && !e.dtype.valid() {
				err = fmt.Errorf("dtype %q is not supported; supported are %v", s, dtypes)
			}
			return err
		case "shape":
			dims, err := r.uints(maxRank)
			e.shape = make([]int, len(dims))
			for i, d := range dims {
				e.shape[i] = int(d)
			}
			return err
		}
		offsets, err := r.uints(2)
		if err == nil && len(offsets) != 2 {
			err = fmt.Errorf("%d numbers instead of 2", len(offsets))
		}
		if err != nil {
			return fmt.Errorf("data_offsets: %w", err)
		}
		e.begin, e.end = offsets[0], offsets[1]
		return nil
	})
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("missing key %q", missing[0])
	}
	return err
}

func (r headerReader) strings() (map[string]string, error) {
	m := map[string]string{}
	err := r.object(func(key string) error {
		s, err := r.str()
		m[key] = s
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", metadataKey, err)
	}
	return m, nil
}

// uints reads a list of at most limit integers in [0, 2⁶³).
func (r headerReader) uints(limit int) ([]uint64, error) {
	if err := r.delim('['); err != nil {
		return nil, err
	}
	var out []uint64
	for r.dec.More() {
		t, err := r.token()
		if err != nil {
			return nil, err
		}
		n, ok := t.(json.Number)
		v, bad := strconv.ParseUint(n.String(), 10, 63)
		if !ok || bad != nil {
			return nil, fmt.Errorf("%v where a non-negative 63-bit integer belongs", t)
		}
		if len(out) == limit {
			return nil, fmt.Errorf("more than %d numbers", limit)
		}
		out = append(out, v)
	}
	return out, r.delim(']')
}

func (r headerReader) str() (string, error) {
	t, err := r.token()
	if err != nil {
		return "", err
	}
	s, ok := t.(string)
	if !ok {
		return "", fmt.Errorf("%v where a string belongs", t)
	}
	return s, nil
}

func (r headerReader) delim(want json.Delim) error {
	t, err := r.token()
	if err == nil && t != want {
		err = fmt.Errorf("%v where %q belongs", t, want.String())
	}
	return err
}

func (r headerReader) token() (json.Token, error) {
	t, err := r.dec.Token()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return t, err
}
