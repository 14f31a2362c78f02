package runtime

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/vitgen/vitgen/runtime/safetensors"
)

// ClassesKey is the metadata key under which weights files name the classes: a
// JSON array of strings, in the order of the logits.
const ClassesKey = "vitgen.classes"

// SetClasses names the classes 0, 1, …; Save writes the names into the weights
// file. There may be fewer names than the model has classes, as the data set
// that it is trained on may. nil: no names.
func (s *Session) SetClasses(names []string) error {
	if err := s.model.checkClasses(names); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.classes = slices.Clone(names)
	return nil
}

// Classes are the names that SetClasses gave or the last Load found; nil if
// there are none.
func (s *Session) Classes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.classes)
}

// ClassName is the name of a class, or its number if it has none.
func (s *Session) ClassName(class int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if class >= 0 && class < len(s.classes) {
		return s.classes[class]
	}
	return strconv.Itoa(class)
}

func (m *Model) checkClasses(names []string) error {
	if len(names) > m.Classes {
		return fmt.Errorf("%d names for the %d classes of model %s", len(names), m.Classes, m.Name)
	}
	for i, n := range names {
		if !utf8.ValidString(n) {
			return fmt.Errorf("the name of class %d is not UTF-8: %q", i, n)
		}
	}
	return nil
}

// ClassesMetadata is the entry that names the classes in the metadata of a file;
// nil without names.
func ClassesMetadata(names []string) map[string]string {
	if len(names) == 0 {
		return nil
	}
	text, err := json.Marshal(names)
	if err != nil {
		panic("BUG: class names do not encode: " + err.Error())
	}
	return map[string]string{ClassesKey: string(text)}
}

// ClassesOf are the names of the classes that a weights file carries; nil if it
// carries none, as files of PyTorch do.
func (m *Model) ClassesOf(f *safetensors.File) ([]string, error) {
	text, ok := f.Metadata[ClassesKey]
	if !ok {
		return nil, nil
	}
	var names []string
	if err := json.Unmarshal([]byte(text), &names); err != nil {
		return nil, fmt.Errorf("metadata %s is not a JSON array of names: %w", ClassesKey, err)
	}
	if err := m.checkClasses(names); err != nil {
		return nil, fmt.Errorf("metadata %s: %w", ClassesKey, err)
	}
	return names, nil
}
