// Porcupine's verdict on recorded histories, one a line, beside our own: `make sim-porcupine`.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/anishathalye/porcupine"
)

// A history of one key, as node/simulation/invariants/linearizable.rs writes it.
type history struct {
	Verdict    string      `json:"verdict"`
	Spoiled    bool        `json:"spoiled"`
	Operations []operation `json:"operations"`
}

type operation struct {
	Command  string `json:"command"`
	Value    int64  `json:"value"`
	Asked    int64  `json:"asked"`
	Answered *int64 `json:"answered"`
	Answer   *int64 `json:"answer"`
}

// What a key holds.
type value struct {
	is bool
	of int64
}

func number(of int64) value { return value{true, of} }

func truth(is bool) value {
	if is {
		return number(1)
	}
	return number(0)
}

// What the key holds afterwards, and the answer.
func (o operation) executed(before value) (value, value) {
	switch o.Command {
	case "get":
		return before, before
	case "set":
		return number(o.Value), value{}
	case "delete":
		return value{}, truth(before.is)
	case "increment":
		after := number(before.of + 1)
		return after, after
	case "set if absent":
		if before.is {
			return before, truth(false)
		}
		return number(o.Value), truth(true)
	case "exchange":
		return number(o.Value), before
	}
	panic("an unknown command: " + o.Command)
}

var model = porcupine.Model{
	Init: func() interface{} { return value{} },
	Step: func(state, input, _ interface{}) (bool, interface{}) {
		asked := input.(operation)
		after, answer := asked.executed(state.(value))
		if asked.Answered == nil {
			return true, after
		}
		told := value{}
		if asked.Answer != nil {
			told = number(*asked.Answer)
		}
		return told == answer, after
	},
}

func (h history) judged() porcupine.CheckResult {
	var operations []porcupine.Operation
	for client, asked := range h.Operations {
		end := int64(math.MaxInt64)
		if asked.Answered != nil {
			end = *asked.Answered
		}
		operations = append(operations, porcupine.Operation{ClientId: client, Input: asked, Call: asked.Asked, Return: end})
	}
	return porcupine.CheckOperationsTimeout(model, operations, 10*time.Second)
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 64<<20)
	var histories, operations, spoiled, refuted, undecided, apart int
	for lines.Scan() {
		var read history
		if err := json.Unmarshal(lines.Bytes(), &read); err != nil {
			fmt.Fprintln(os.Stderr, "line", histories+spoiled+1, "is no history:", err)
			os.Exit(1)
		}
		verdict := read.judged()
		ours := porcupine.Ok
		if read.Verdict == "Refuted" {
			ours = porcupine.Illegal
		}
		switch {
		case verdict == porcupine.Unknown || read.Verdict == "Undecided":
			undecided++
		case verdict != ours:
			apart++
			fmt.Printf("apart: porcupine says %v of %s\n", verdict, lines.Bytes())
		}
		if read.Spoiled {
			spoiled++
			if verdict == porcupine.Illegal {
				refuted++
			}
			continue
		}
		histories++
		operations += len(read.Operations)
		if verdict == porcupine.Illegal {
			fmt.Printf("not linearizable: %s\n", lines.Bytes())
			apart++
		}
	}
	if err := lines.Err(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("porcupine: %d histories of a key with %d operations are linearizable; of %d spoiled ones %d are refuted; "+
		"%d undecided; %d judged otherwise than here\n", histories, operations, spoiled, refuted, undecided, apart)
	if apart > 0 || histories == 0 || refuted == 0 {
		os.Exit(1)
	}
}
