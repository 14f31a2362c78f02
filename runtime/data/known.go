package data

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"path"
	"strings"
)

// KnownFile is a file of a published data set.
type KnownFile struct {
	Name   string // slashes between folders, below the data directory
	Size   int64  // bytes
	SHA256 string // hex
	// Content is the SHA-256 of what a .gz file holds.
	Content string
	// Members are the files that a tar.gz archive is distributed for.
	Members []KnownFile
}

// known are the files of data sets as their authors distribute them. The sizes
// and SHA-256 are those that independent projects check the same files with;
// the authors' pages and torchvision name MD5 only.
var known = map[string][]KnownFile{
	"mnist": {
		{Name: "mnist/" + trainImages + ".gz", Size: 9_912_422,
			SHA256:  "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
			Content: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"},
		{Name: "mnist/" + trainLabels + ".gz", Size: 28_881,
			SHA256:  "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
			Content: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"},
		{Name: "mnist/" + testImages + ".gz", Size: 1_648_877,
			SHA256:  "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
			Content: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"},
		{Name: "mnist/" + testLabels + ".gz", Size: 4_542,
			SHA256:  "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
			Content: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"},
	},
	"fashion_mnist": {
		{Name: "fashion_mnist/" + trainImages + ".gz", Size: 26_421_880,
			SHA256:  "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
			Content: "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"},
		{Name: "fashion_mnist/" + trainLabels + ".gz", Size: 29_515,
			SHA256:  "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
			Content: "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"},
		{Name: "fashion_mnist/" + testImages + ".gz", Size: 4_422_102,
			SHA256:  "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
			Content: "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"},
		{Name: "fashion_mnist/" + testLabels + ".gz", Size: 5_148,
			SHA256:  "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
			Content: "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"},
	},
	"cifar10": {{
		Name: "cifar-10-binary.tar.gz", Size: 170_052_171, SHA256: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
		Members: []KnownFile{
			cifarBatch("data_batch_1.bin", "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5"),
			cifarBatch("data_batch_2.bin", "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed"),
			cifarBatch("data_batch_3.bin", "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67"),
			cifarBatch("data_batch_4.bin", "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48"),
			cifarBatch("data_batch_5.bin", "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add"),
			cifarBatch("test_batch.bin", "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b"),
		},
	}},
}

// cifarBatch is a file of CIFAR-10's binary version: 10,000 records of a label
// and 3×32×32 pixels.
func cifarBatch(name, sum string) KnownFile {
	return KnownFile{Name: "cifar-10-batches-bin/" + name, Size: 10_000 * (1 + 3*32*32), SHA256: sum}
}

// KnownFiles lists the files that a published data set is distributed as, or
// nil.
func KnownFiles(set string) []KnownFile { return known[set] }

// content is what the files of a set hold, by their names without folders and
// .gz: hex SHA-256.
func content(set string) map[string]string {
	sums := map[string]string{}
	for _, f := range known[set] {
		if f.Content != "" {
			sums[strings.TrimSuffix(path.Base(f.Name), ".gz")] = f.Content
		}
		for _, m := range f.Members {
			sums[path.Base(m.Name)] = m.SHA256
		}
	}
	return sums
}

// unpublished tells the user that a file of the right form is not the published
// one of that name: another data set in its place, say, whose results would be
// taken for this one's. sum is the SHA-256 of its content.
func (c *Config) unpublished(file, name string, sum []byte) {
	got, want := hex.EncodeToString(sum), content(c.Name)[name]
	if want != "" && got != want {
		c.Warn(fmt.Sprintf("%s is not what is published as %s of %s: the SHA-256 of its content begins with %.12s, not %.12s", file, name, c.Name, got, want))
	}
}

// sum is the SHA-256 of an uncompressed IDX file.
func (a *array) sum(magic uint32) []byte {
	h := sha256.New()
	head := binary.BigEndian.AppendUint32(nil, magic)
	for _, d := range a.dims {
		head = binary.BigEndian.AppendUint32(head, uint32(d))
	}
	h.Write(head)
	h.Write(a.values)
	return h.Sum(nil)
}

// fetchHint is the next step where files are missing.
func (c *Config) fetchHint() string {
	where := ""
	if c.Dir != "data" { // the trainer's default
		where = " --data-dir " + c.Dir
	}
	return fmt.Sprintf("`fetch %s%s` downloads them", c.Name, where)
}
