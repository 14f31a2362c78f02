package data

// KnownFile is a file of a published data set.
type KnownFile struct {
	Name   string // slashes between folders, below the data directory
	Size   int64  // bytes
	SHA256 string // hex
	// Members are the files that a tar.gz archive is distributed for.
	Members []KnownFile
}

// known are the files of data sets as their authors distribute them. Their
// SHA-256 were taken from several independent copies of them; the archives'
// MD5 are those that torchvision and the authors' pages name.
var known = map[string][]KnownFile{
	"mnist": {
		{Name: "mnist/" + trainImages + ".gz", Size: 9_912_422, SHA256: "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"},
		{Name: "mnist/" + trainLabels + ".gz", Size: 28_881, SHA256: "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"},
		{Name: "mnist/" + testImages + ".gz", Size: 1_648_877, SHA256: "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"},
		{Name: "mnist/" + testLabels + ".gz", Size: 4_542, SHA256: "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"},
	},
	"fashion_mnist": {
		{Name: "fashion_mnist/" + trainImages + ".gz", Size: 26_421_880, SHA256: "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"},
		{Name: "fashion_mnist/" + trainLabels + ".gz", Size: 29_515, SHA256: "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"},
		{Name: "fashion_mnist/" + testImages + ".gz", Size: 4_422_102, SHA256: "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"},
		{Name: "fashion_mnist/" + testLabels + ".gz", Size: 5_148, SHA256: "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"},
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
