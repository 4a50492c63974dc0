/*
 * The least that a user-space responder can do, as a yardstick: one blocking packet socket, one recvfrom and one
 * sendto for each request, no table, no check, no counter. It answers every ARP request, or every neighbour
 * solicitation, that is addressed to its own network card.
 *
 *   arp_responder INTERFACE arp|ndp
 */
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ARP_LEN = 42, NA_LEN = 86 };

static uint8_t own[6];

/* In place, from request to reply. */
static size_t arp(uint8_t *frame, ssize_t len)
{
	uint8_t asked[4];

	if (len < ARP_LEN || frame[20] != 0 || frame[21] != 1 || memcmp(frame, own, 6) != 0)
		return 0;
	memcpy(frame, frame + 6, 6);
	memcpy(frame + 6, own, 6);
	frame[21] = 2;
	memcpy(asked, frame + 38, 4);
	memcpy(frame + 32, frame + 22, 10);
	memcpy(frame + 22, own, 6);
	memcpy(frame + 28, asked, 4);
	return ARP_LEN;
}

static uint32_t add(uint32_t sum, const uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i + 1 < len; i += 2)
		sum += (uint32_t)bytes[i] << 8 | bytes[i + 1];
	return sum;
}

static size_t ndp(uint8_t *frame, ssize_t len)
{
	uint32_t sum;

	if (len < 78 || frame[20] != 58 || frame[54] != 135 || memcmp(frame, own, 6) != 0)
		return 0;
	memcpy(frame, frame + 6, 6);
	memcpy(frame + 6, own, 6);
	frame[18] = 0;
	frame[19] = 32;
	memcpy(frame + 38, frame + 22, 16); /* to the asker */
	memcpy(frame + 22, frame + 62, 16); /* from the target */
	frame[54] = 136;
	frame[56] = frame[57] = 0;
	frame[58] = 0x60; /* solicited, override */
	frame[78] = 2;
	frame[79] = 1;
	memcpy(frame + 80, own, 6);
	sum = add(add(32 + 58, frame + 22, 32), frame + 54, 32);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	sum = ~sum;
	frame[56] = sum >> 8;
	frame[57] = sum;
	return NA_LEN;
}

int main(int argc, char **argv)
{
	int is_arp = argc == 3 && strcmp(argv[2], "arp") == 0;
	struct sockaddr_ll address = { .sll_family = AF_PACKET };
	struct ifreq request = { 0 };
	uint8_t frame[2048] = { 0 };
	int packets;

	if (argc != 3 || (!is_arp && strcmp(argv[2], "ndp") != 0)) {
		fprintf(stderr, "usage: arp_responder INTERFACE arp|ndp\n");
		return 2;
	}
	packets = socket(AF_PACKET, SOCK_RAW, 0);
	strncpy(request.ifr_name, argv[1], IFNAMSIZ - 1);
	if (packets < 0 || ioctl(packets, SIOCGIFHWADDR, &request) < 0) {
		perror("arp_responder");
		return 1;
	}
	memcpy(own, request.ifr_hwaddr.sa_data, 6);
	address.sll_protocol = htons(is_arp ? ETH_P_ARP : ETH_P_IPV6);
	address.sll_ifindex = if_nametoindex(argv[1]);
	if (bind(packets, (struct sockaddr *)&address, sizeof address) < 0) {
		perror("arp_responder: bind");
		return 1;
	}
	for (;;) {
		ssize_t len = recvfrom(packets, frame, sizeof frame, 0, NULL, NULL);
		size_t answer = is_arp ? arp(frame, len) : ndp(frame, len);

		if (answer)
			sendto(packets, frame, answer, 0, (struct sockaddr *)&address, sizeof address);
	}
}
