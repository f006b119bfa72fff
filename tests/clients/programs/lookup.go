// Looks up a name with Go's own resolver, NAME [TYPE]: its addresses, or with SRV its services.
// Prints one a line.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
)

func main() {
	resolver := &net.Resolver{PreferGo: true}
	name := os.Args[1]
	if len(os.Args) > 2 && os.Args[2] == "SRV" {
		_, services, err := resolver.LookupSRV(context.Background(), "", "", name)
		check(err)
		for _, s := range services {
			fmt.Println(s.Priority, s.Weight, s.Port, s.Target)
		}
		return
	}
	addresses, err := resolver.LookupHost(context.Background(), name)
	check(err)
	for _, address := range addresses {
		fmt.Println(address)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
