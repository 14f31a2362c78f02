package report

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"image"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// An event file is a sequence of TFRecords, each an Event message:
//
//	length uint64 | masked CRC of it | message | masked CRC of it
//
// Messages and field numbers are those of tensorboard/compat/proto/event.proto
// and summary.proto. TensorBoard reads the files of a folder in the order of
// their names, and each up to the first record that is not complete, so a run
// that goes on after a crash writes a new file.

// events is an event file being written.
type events struct{ file *os.File }

// Names of our event files: TensorBoard looks for the prefix, the suffix tells
// them from others'.
const eventsPrefix, eventsSuffix = "events.out.tfevents.", ".vitgen"

// newEvents makes an event file for the updates from first on. If the folder has
// one already, TensorBoard forgets what it read there of those updates.
func newEvents(dir string, first int) (*events, error) {
	names, err := eventFiles(dir)
	if err != nil {
		return nil, err
	}
	seconds := time.Now().Unix()
	if len(names) > 0 {
		// Whatever the clock says: the new name must be the last in order.
		last, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimPrefix(names[len(names)-1], eventsPrefix), eventsSuffix), 10, 64)
		seconds = max(seconds, last+1)
	}
	f, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("%s%010d%s", eventsPrefix, seconds, eventsSuffix)), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	e := &events{f}
	version := protowire.AppendTag(nil, 3, protowire.BytesType) // Event.file_version
	version = protowire.AppendString(version, "brain.Event:2")
	// Event.session_log.status = START. The second one that TensorBoard meets
	// in a folder makes it drop all events of its step and later ones.
	start := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 1)
	for _, what := range [][]byte{version, message(nil, 7, start)} {
		if err := e.write(first, what); err != nil {
			f.Close()
			return nil, err
		}
	}
	return e, nil
}

// eventFiles are the names of our event files in a folder, in order.
func eventFiles(dir string) (names []string, err error) {
	all, err := os.ReadDir(dir)
	for _, f := range all {
		if strings.HasPrefix(f.Name(), eventsPrefix) && strings.HasSuffix(f.Name(), eventsSuffix) {
			names = append(names, f.Name())
		}
	}
	slices.Sort(names)
	return names, err
}

// removeEvents removes our event files from a folder.
func removeEvents(dir string) error {
	names, err := eventFiles(dir)
	for _, n := range names {
		if err := os.Remove(filepath.Join(dir, n)); err != nil {
			return err
		}
	}
	return err
}

func (e *events) close() error { return e.file.Close() }

// write appends an event to the file, in one piece.
func (e *events) write(step int, what []byte) error {
	seconds := float64(time.Now().UnixMicro()) / 1e6
	b := protowire.AppendTag(nil, 1, protowire.Fixed64Type) // Event.wall_time
	b = protowire.AppendFixed64(b, math.Float64bits(seconds))
	b = protowire.AppendTag(b, 2, protowire.VarintType) // Event.step
	b = protowire.AppendVarint(b, uint64(step))
	_, err := e.file.Write(frame(append(b, what...)))
	return err
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// frame is a TFRecord.
func frame(data []byte) []byte {
	masked := func(b []byte) uint32 {
		crc := crc32.Checksum(b, castagnoli)
		return (crc>>15 | crc<<17) + 0xa282ead8
	}
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(data)))
	b = binary.LittleEndian.AppendUint32(b, masked(b))
	b = append(b, data...)
	return binary.LittleEndian.AppendUint32(b, masked(data))
}

// message appends an embedded message as a field.
func message(b []byte, field protowire.Number, data []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), data)
}

// summary is Event.summary with its values.
func summary(values ...[]byte) []byte {
	var s []byte
	for _, v := range values {
		s = message(s, 1, v)
	}
	return message(nil, 5, s)
}

// scalar is a Summary.Value of one number.
func scalar(tag string, v float64) []byte {
	b := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), tag)
	b = protowire.AppendTag(b, 2, protowire.Fixed32Type) // simple_value
	return protowire.AppendFixed32(b, math.Float32bits(float32(v)))
}

// picture is a Summary.Value of one image, as PNG.
func picture(tag string, m image.Image) ([]byte, error) {
	var encoded bytes.Buffer
	if err := png.Encode(&encoded, m); err != nil {
		return nil, fmt.Errorf("image %s: %w", tag, err)
	}
	size := m.Bounds().Size()
	var i []byte // Summary.Image
	for field, v := range []int{1: size.Y, 2: size.X, 3: 4} {
		if field > 0 { // height, width, colour space: RGBA
			i = protowire.AppendVarint(protowire.AppendTag(i, protowire.Number(field), protowire.VarintType), uint64(v))
		}
	}
	i = protowire.AppendBytes(protowire.AppendTag(i, 4, protowire.BytesType), encoded.Bytes())
	return message(protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), tag), 4, i), nil
}

// AddImages gives TensorBoard pictures of an update: under tag if there is one,
// under tag/0, tag/1, … if there are several.
func (h *History) AddImages(step int, tag string, pictures []image.Image) error {
	var values [][]byte
	for i, m := range pictures {
		name := tag
		if len(pictures) > 1 {
			name = fmt.Sprintf("%s/%d", tag, i)
		}
		v, err := picture(name, m)
		if err != nil {
			return err
		}
		values = append(values, v)
	}
	if values == nil {
		return nil
	}
	return h.events.write(step, summary(values...))
}
