// Queue pairs of an interface, for the guest of a network test (ethtool is not in BusyBox).
//   channels INTERFACE N      uses N pairs, and says how many of how many are in use
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

int main(int count, char** words) {
  if (count != 3) return 2;
  int control = socket(AF_INET, SOCK_DGRAM, 0);
  struct ethtool_channels channels = {.cmd = ETHTOOL_GCHANNELS};
  struct ifreq request = {.ifr_data = (void*)&channels};
  strncpy(request.ifr_name, words[1], IFNAMSIZ - 1);
  if (ioctl(control, SIOCETHTOOL, &request) != 0) return perror("channels"), 1;
  unsigned wanted = (unsigned)atoi(words[2]);
  channels.cmd = ETHTOOL_SCHANNELS;
  if (channels.combined_count != wanted) {
    channels.combined_count = wanted;
    if (ioctl(control, SIOCETHTOOL, &request) != 0) return perror("setting channels"), 1;
  }
  channels.cmd = ETHTOOL_GCHANNELS;
  if (ioctl(control, SIOCETHTOOL, &request) != 0) return perror("channels"), 1;
  printf("%s uses %u of %u pairs\n", words[1], channels.combined_count, channels.max_combined);
  return 0;
}
