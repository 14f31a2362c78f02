package board

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"image"
	"image/png"
	"sync"

	"github.com/vitgen/vitgen/runtime/report"
)

// Prediction is what the model says of one validation image.
type Prediction struct {
	Picture     image.Image // not changed after it was given
	Guess       string      // name of the class
	Probability float64     // of the guess
	Truth       string
}

// Predictions are what the model says after a validation.
type Predictions struct {
	Step   int
	Epoch  float64
	Same   []Prediction // of the same images every time
	Missed []Prediction // of images that it gets wrong

	Wrong, Samples int // of the whole validation part
}

// Most predictions shown of each kind, so that a page stays light.
const maxPictures = 24

// gallery is Predictions, and what clients get of them, made when the first
// asks for it: a run that nobody watches encodes no pictures.
type gallery struct {
	shown Predictions
	json  func() json.RawMessage
}

// Predictions shows what the model says, in place of what it said before.
func (b *Board) Predictions(p Predictions) {
	if b == nil {
		return
	}
	p.Same, p.Missed = p.Same[:min(len(p.Same), maxPictures)], p.Missed[:min(len(p.Missed), maxPictures)]
	g := &gallery{shown: p}
	g.json = sync.OnceValue(g.encode)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.predictions = g
	b.wake()
}

// encode writes the predictions with their pictures: a page that has them needs
// no server any more.
func (g *gallery) encode() json.RawMessage {
	type shown struct {
		Picture     string `json:"picture"`
		Width       int    `json:"width"` // of the picture as the model sees it
		Height      int    `json:"height"`
		Guess       string `json:"guess"`
		Probability number `json:"probability"`
		Truth       string `json:"truth"`
	}
	list := func(of []Prediction) []shown {
		out := make([]shown, len(of))
		for i, p := range of {
			out[i] = shown{dataURL(p.Picture), p.Picture.Bounds().Dx(), p.Picture.Bounds().Dy(), p.Guess, number(p.Probability), p.Truth}
		}
		return out
	}
	p := &g.shown
	text, err := json.Marshal(struct {
		Step    int     `json:"step"`
		Epoch   number  `json:"epoch"`
		Same    []shown `json:"same"`
		Missed  []shown `json:"missed"`
		Wrong   int     `json:"wrong"`
		Samples int     `json:"samples"`
	}{p.Step, number(p.Epoch), list(p.Same), list(p.Missed), p.Wrong, p.Samples})
	if err != nil {
		panic("BUG: predictions cannot be written as JSON: " + err.Error())
	}
	return text
}

// maxSide is the most pixels of a picture's side on the page.
const maxSide = 128

// dataURL is a picture as a PNG in a URL, shrunk if it is large.
func dataURL(p image.Image) string {
	var b bytes.Buffer
	if err := png.Encode(&b, report.Shrink(p, maxSide)); err != nil {
		panic("BUG: a picture cannot be written as PNG: " + err.Error()) // into memory
	}
	return "data:image/png;base64," + base64.StdEncoding.EncodeToString(b.Bytes())
}
