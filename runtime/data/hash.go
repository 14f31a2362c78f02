package data

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// hashTables is the hash of data sets held in memory: their shapes, labels and
// pixels, however they were stored.
func hashTables(tables ...*table) string {
	h := sha256.New()
	for _, t := range tables {
		fmt.Fprintf(h, "%d images of %v\n", t.Len(), t.Shape())
		h.Write(t.labels)
		h.Write(t.images)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func hashText(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
