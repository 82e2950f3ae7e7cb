/* Spoorway: events from a board, each forgotten only when the gateway says that it is on disk.

   A tracker is put together of four parts, and only what is used is linked:

     Store    where events wait: Queue (RAM), Journal (EEPROM, your own cells) or Files (SpoorwayFiles.h); Consent<…> around it to opt out
     Link     how they leave: SerialLine (any Stream), Mqtt or Http (any Client)
     Format   how they are written: Json, Query or Compact
     Seal     who proves them: Open, or Hmac (signed serial lines and HTTP requests)

   No heap, no String, no delay, no printf. Licence: Apache-2.0. */
#ifndef SPOORWAY_H
#define SPOORWAY_H

#include <Arduino.h>
#ifdef ARDUINO_ARCH_AVR
class Client; /* its header links IPAddress, which a sketch without a network does not need */
#else
#include <Client.h>
#endif

#define SPOORWAY_VERSION "1.0.0"

#include "spoorway/words.h"
#include "spoorway/queue.h"
#include "spoorway/journal.h"
#include "spoorway/consent.h"
#include "spoorway/write.h"
#include "spoorway/formats.h"
#include "spoorway/seal.h"
#include "spoorway/tracker.h"
#include "spoorway/serial_line.h"
#include "spoorway/http.h"
#include "spoorway/mqtt.h"

#endif
