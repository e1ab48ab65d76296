// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"bufio"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
)

const passwdFile = "/etc/passwd"

// What people of a machine are numbered with; passwd(5) of Debian, RHEL and
// others. Below are services, above is nobody.
const firstPerson, nobody = 1000, 65534

// homes lists the homes of root and of people. Who is in no passwd file (LDAP)
// is missed.
func homes(passwd string) ([]string, error) {
	f, err := os.Open(passwd)
	if err != nil {
		return nil, fmt.Errorf("whose homes are to be covered: %w", err)
	}
	defer f.Close()
	var out []string
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		w := strings.Split(sc.Text(), ":")
		if len(w) < 7 {
			continue
		}
		uid, err := strconv.ParseUint(w[2], 10, 32)
		home := path.Clean(w[5])
		if err == nil && (uid == 0 || uid >= firstPerson && uid != nobody) && path.IsAbs(home) && home != "/" {
			out = append(out, home)
		}
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("whose homes are to be covered: %s: %w", passwd, err)
	}
	return out, nil
}
