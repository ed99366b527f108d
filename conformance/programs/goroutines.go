// cc: (go build, static)
// Goroutines, channels, garbage collection, preemption, maps, panics, timers.
package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"runtime"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

type node struct {
	left, right *node
	data        [8]int
}

func tree(d int) *node {
	if d == 0 {
		return &node{}
	}
	return &node{tree(d - 1), tree(d - 1), [8]int{d}}
}
func (n *node) count() int {
	if n == nil {
		return 0
	}
	return 1 + n.left.count() + n.right.count()
}

func safe(i int) (r string) {
	defer func() { r = fmt.Sprint(recover()) }()
	var a []int
	if i == 1 {
		_ = a[i]
	}
	if i == 2 {
		var p *node
		_ = p.data[0]
	}
	zero := i - i
	return fmt.Sprint(1 / zero)
}

func main() {
	var wg sync.WaitGroup
	var total int64
	jobs := make(chan int, 10)
	for w := 0; w < 8; w++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for j := range jobs {
				s := sha256.Sum256([]byte(fmt.Sprint(j)))
				atomic.AddInt64(&total, int64(s[0])<<8|int64(s[1]))
			}
		}()
	}
	for i := 0; i < 500; i++ {
		jobs <- i
	}
	close(jobs)
	wg.Wait()
	fmt.Println("hashes", total)

	sum := 0
	for i := 0; i < 20; i++ {
		sum += tree(12).count()
	}
	runtime.GC()
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	fmt.Println("trees", sum, ms.NumGC > 0)

	// A loop without calls must be preempted (SIGURG).
	done := make(chan bool)
	var stop int32
	go func() {
		n := 0
		for atomic.LoadInt32(&stop) == 0 {
			n++
		}
		done <- n > 0
	}()
	time.Sleep(20 * time.Millisecond)
	runtime.GC()
	atomic.StoreInt32(&stop, 1)
	fmt.Println("preempted", <-done)

	for i := 0; i < 3; i++ {
		fmt.Println(safe(i))
	}
	m := map[string]int{}
	for i := 0; i < 3000; i++ {
		m[strings.Repeat("k", i%50)+fmt.Sprint(i%97)] += i
	}
	keys := make([]string, 0)
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	fmt.Println(len(keys), m[keys[17]])

	primes := make(chan int)
	go func() {
		for i := 2; ; i++ {
			primes <- i
		}
	}()
	in := primes
	for i := 0; i < 40; i++ {
		p := <-in
		out := make(chan int)
		go func(in, out chan int, p int) {
			for v := range in {
				if v%p != 0 {
					out <- v
				}
			}
		}(in, out, p)
		in = out
		if i == 39 {
			fmt.Println("prime", p)
		}
	}
	select {
	case <-time.After(10 * time.Millisecond):
		fmt.Println("timer")
	}
	host, _ := os.Getwd()
	fmt.Println(host, os.Getuid(), runtime.GOARCH)
	os.WriteFile("go.out", []byte("written\n"), 0o644)
	os.Exit(3)
}
